"""The fast check: valid plans are proven by columns alone, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.sim.plan import Op, Plan, PlanError, Program, check_plan, read_plan
from exactmap.sim.plan import check as check_module
from exactmap.sim.plan.accept import accepts
from exactmap.sim.plan.accept_games import comes_to_end
from exactmap.sim.plan.declarations import check_declarations
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.plan.writer import header_text
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

CORPUS = Path(__file__).parents[1] / "golden" / "plans"
UNCOVERED = {"parts", "overlapping-pools"}
ROWS = [row.split("\t") for row in (CORPUS / "verdicts.tsv").read_text(encoding="ascii").splitlines()[1:]]
LATE = [row[0] for row in ROWS if row[1].partition(".")[0] in {"prog", "pair", "graph"}]
EDITS = [
    ("free-clock", "prog.ref", [("clock=free", "clock=barrier")]),
    ("free-clock", "prog.bucket", [("PV 0/0\n", "PV 0/0\nPV 0/0\n")]),
    ("free-clock", "prog.bucket", [("UNDO 0/0\n", "UNDO 0/0\nUNDO 0/0\n")]),
    ("free-clock", "prog.bucket", [("UNDO 0/0\nZERO 0/0\n", "ZERO 0/0\nUNDO 0/0\n")]),
    ("free-clock", "prog.norm", [("WC @down\nPV 0/0\n", "PV 0/0\nWC @down\n")]),
    ("free-clock", "prog.norm", [("B 0.0\nNORM @up\n", "NORM @up\nB 0.0\n")]),
    ("free-clock", "prog.norm", [("WC @up\nOPT 0/0\n", "OPT 0/0\nWC @up\n")]),
    (
        "free-clock",
        "prog.norm",
        [
            ("ZERO 0/0\nF 0.0 h0 a0 w0\n", "NORM @up\nZERO 0/0\nF 0.0 h0 a0 w0\n"),
            ("B 0.0\nNORM @up\n", "B 0.0\n"),
        ],
    ),
    ("sharded", "prog.bucket", [("FREE 0/0\n", "FREE 0/0\nFREE 0/0\n")]),
    ("sharded", "prog.slot", [("FREE 0/0\n", "")]),
    (
        "sharded",
        "prog.bucket",
        [
            (
                "FREE 0/0\nWC 0/0@dp\n",
                "WC 0/0@dp\nFREE 0/0\nAG 0/0@dp p0\nAG 0/0@dp p0\nWC 0/0@dp\nWC 0/0@dp\nFREE 0/0\nFREE 0/0\n",
            )
        ],
    ),
    ("sharded", "prog.bucket", [("AG 0/0@dp p0\n", ""), ("WC 0/0@dp\nF 0.0", "F 0.0"), ("FREE 0/0\n", "")]),
    (
        "sharded",
        "prog.bucket",
        [("RS 0/0@dp\nFREE 0/0\n", "FREE 0/0\nRS 0/0@dp\n"), ("B 0.1\nFREE 0/0\n", "FREE 0/0\nB 0.1\n")],
    ),
    ("sharded", "prog.bucket", [("OPT 0/0\n", "OPT 0/0\nZERO 0/0 q0\nRS 0/0@dp\nWC 0/0@dp\n")]),
    ("sharded", "prog.bucket", [("OPT 0/0\n", "OPT 0/0\nOPT 0/0\n")]),
    ("sharded", "prog.bucket", [("ZERO 0/0 q0\nWC", "AR 0/0@dp\nZERO 0/0 q0\nWC 0/0@dp\nWC")]),
    (
        "sharded",
        "prog.bucket",
        [("RS 0/0@dp\nWC 0/0@dp\nZERO 0/0 q0\n", "RS 0/0@dp\nZERO 0/0 q0\nWC 0/0@dp\n")],
    ),
    (
        "two-reductions",
        "prog.bucket",
        [
            (
                "OPT 0/0\nEND\nprogram P1",
                "ZERO 0/0\nAR 0/0@dp\nAR 0/0@twin\nWC 0/0@dp\nWC 0/0@twin\nOPT 0/0\nEND\nprogram P1",
            )
        ],
    ),
    ("two-reductions", "prog.bucket", [("AR 0/0@dp\nAR 0/0@twin\n", "AR 0/0@twin\nAR 0/0@dp\n")]),
    ("two-reductions", "prog.wait", [("WC 0/0@dp\nWC 0/0@twin\n", "WC 0/0@twin\nWC 0/0@dp\n")]),
    ("two-reductions", "prog.bucket", [("B 0.0\nAR 0/0@dp\n", "AR 0/0@dp\nB 0.0\n")]),
    ("zb-h1", "prog.order", [("W 0.0\nW 0.1\n", "W 0.1\nW 0.0\nB 0.0\n")]),
    ("zb-h1", "prog.order", [("I 0.1 g1\nW 0.0\n", "W 0.0\nI 0.1 g1\nB 0.1\n")]),
    (
        "zb-h1",
        "prog.order",
        [("WR 0.0@b\nI 0.0 g0\n", "W 0.0\nWR 0.0@b\nI 0.0 g0\n"), ("I 0.1 g1\nW 0.0\n", "I 0.1 g1\n")],
    ),
    ("zb-h1", "prog.work", [("W 0.1\nOPT 0/0\n", "W 0.1\nW 0.1\nOPT 0/0\n")]),
    ("zb-h1", "prog.data", [("WR 0.0@b\nI 0.0 g0\n", "I 0.0 g0\nWR 0.0@b\n")]),
    ("zb-h1", "prog.data", [("WR 1.0@f\nF 1.0 a0 w0\n", "F 1.0 a0 w0\nWR 1.0@f\n")]),
    ("single-stage", "prog.work", [("B 0.1\n", "")]),
    ("single-stage", "prog.work", [("F 0.1 a0 w0\nB 0.1\n", "F 0.1\n")]),
    ("single-stage", "prog.order", [("F 0.1 a0 w0\nB 0.1\n", "F 0.1\nB 0.1\n")]),
    ("single-stage", "prog.order", [("F 0.1 a0 w0\nB 0.1\n", "F 0.1 a0 w0\nRC 0.1 a0 w0\nB 0.1\n")]),
    ("single-stage", "prog.order", [("F 0.1 a0 w0\nB 0.1\n", "RC 0.1 a0 w0\nF 0.1\nB 0.1\n")]),
    ("single-stage", "prog.ref", [("OPT 0/0\n", "OPT 0/0\nOPT 0/1\n")]),
    ("single-stage", "pair.work", [("F 0.1 a0 w0\nB 0.1\n", "")]),
]
"""Plan of the corpus, code of the exact check, what is replaced by what: the rules that few files break."""
TINY = ModelConfig(
    ModelKind.GPT,
    layers=8,
    hidden=32,
    heads=2,
    kv_heads=2,
    head_dim=16,
    ffn=64,
    vocab=259,
    positions=64,
    tied=True,
)


def lowered(schedule: str = "interleaved-1f1b", chunks: int = 2, num_microbatches: int = 40) -> Plan:
    plan = build_plan(
        TINY, schedule=schedule, pp=4, num_microbatches=num_microbatches, chunks=chunks, dp=2, seq=32
    )
    programs = tuple(
        Program(program.name, InstructionTable.of(program.instructions)) for program in plan.programs
    )
    return replace(plan, programs=programs)


def with_rows_swapped(plan: Plan, number: int, row: int) -> Plan:
    """The plan with a row of one program and the row behind it in each other's place."""
    programs = list(plan.programs)
    instructions = list(programs[number].instructions)
    instructions[row : row + 2] = instructions[row : row + 2][::-1]
    programs[number] = Program(programs[number].name, tuple(instructions))
    return replace(plan, programs=tuple(programs))


@pytest.mark.parametrize("path", sorted((CORPUS / "valid").glob("*.plan")), ids=lambda path: path.stem)
def test_a_valid_plan_is_proven(path: Path) -> None:
    """But for parts of passes and for pools that overlap, which are left to the walk."""
    assert accepts(read_plan(path.read_bytes())) == (path.stem not in UNCOVERED)


@pytest.mark.parametrize("name", LATE)
def test_a_broken_plan_is_not_proven(name: str) -> None:
    plan = read_plan((CORPUS / name).read_bytes())
    check_declarations(plan, PlanError)

    assert not accepts(plan)


@pytest.mark.parametrize(("name", "code", "edits"), EDITS)
def test_a_plan_with_one_rule_broken_is_not_proven(
    name: str, code: str, edits: list[tuple[str, str]]
) -> None:
    text = (CORPUS / "valid" / f"{name}.plan").read_text(encoding="ascii")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    plan = read_plan(header_text(text.split("\n", 2)[2].encode()))
    check_declarations(plan, PlanError)
    with pytest.raises(PlanError) as caught:
        check_module.check_programs(plan, PlanError)

    assert caught.value.code == code
    assert not accepts(plan)


@pytest.mark.parametrize(
    ("schedule", "chunks"), [("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 2), ("zb-h1", 1)]
)
def test_a_lowered_plan_is_proven(schedule: str, chunks: int) -> None:
    assert accepts(lowered(schedule, chunks))


def test_a_large_valid_plan_is_never_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*_: object) -> None:
        pytest.fail("the plan was walked")

    monkeypatch.setattr(check_module, "check_programs", walk)

    check_plan(lowered())


def test_a_large_broken_plan_gets_the_verdict_of_the_walk() -> None:
    """The second forward pass of a rank names the stash of the first, which lives."""
    plan = lowered()
    instructions = [*plan.programs[2].instructions]
    first, second = [row for row, one in enumerate(instructions) if one.op is Op.F][:2]
    taken = instructions[first].slot("a")
    instructions[second] = instructions[second]._replace(
        slots=tuple((pool, taken if pool == "a" else slot) for pool, slot in instructions[second].slots)
    )
    programs = (*plan.programs[:2], Program("P2", instructions), *plan.programs[3:])

    with pytest.raises(PlanError) as caught:
        check_plan(replace(plan, programs=programs))

    assert caught.value.code == "prog.slot"
    assert caught.value.rank == 2


def test_any_two_neighbours_of_a_lowered_plan_may_change_places_only_if_the_walk_agrees() -> None:
    """Each swap of neighbouring rows of one rank, judged by both checks."""
    plan = lowered("zb-h1", 1, 6)
    kept = 0
    for row in range(len(plan.programs[1]) - 1):
        swapped = with_rows_swapped(plan, 1, row)
        try:
            check_module.check_programs(swapped, PlanError)
            valid = True
        except PlanError:
            valid = False
        kept += valid

        assert accepts(swapped) == valid, swapped.programs[1].instructions[row : row + 2]

    assert 0 < kept < len(plan.programs[1]) - 1


def test_what_no_text_can_hold_is_left_to_the_walk() -> None:
    """Slots in another order, numbers beyond 32 bits, no END: none of it is proven, none of it raises."""
    plan = read_plan((CORPUS / "valid" / "worked-example.plan").read_bytes())
    first = plan.programs[0].instructions
    at = next(row for row, one in enumerate(first) if one.op is Op.F)
    for changed in (
        first[at]._replace(slots=first[at].slots[::-1]),
        first[at]._replace(slots=(*first[at].slots, ("a", 0))),
        first[at]._replace(slots=(("z", 0),)),
        first[at]._replace(microbatch=1 << 40),
        first[at]._replace(microbatch=-2),
        first[at]._replace(phase="X"),
        first[at]._replace(queue="f"),
        first[at]._replace(op=Op.END),
    ):
        program = Program("P0", (*first[:at], changed, *first[at + 1 :]))
        assert not accepts(replace(plan, programs=(program, plan.programs[1])))
    assert not accepts(replace(plan, programs=(Program("P0", first[:-1]), plan.programs[1])))
    assert not accepts(replace(plan, programs=(Program("P0", ()), plan.programs[1])))


def test_actors_that_need_each_other_do_not_come_to_their_end() -> None:
    """Each of two actors needs the other past its own step; then one that needs nothing breaks the circle."""
    assert not comes_to_end([0, 2, 4], [1, 2, 0, 2], [3, 0, 1, 0])
    assert comes_to_end([0, 2, 4], [1, 2, 0, 2], [3, 0, 0, 0])
