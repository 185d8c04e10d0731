"""The order of a plan, and its way into a file of torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.check import load_plan
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Plan, Program
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.order import Work
from exactmap.sim.schedules.plan_order import order_of_plan
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.torch_csv.file import read_torch_csv, write_torch_csv
from exactmap.sim.workload.model import ModelConfig, ModelKind

VALID = Path(__file__).parents[1] / "golden" / "plans" / "valid"


def _plan(name: str) -> Plan:
    return load_plan(VALID / f"{name}.plan")[0]


def _built(schedule: str, pp: int, chunks: int, microbatches: int) -> Plan:
    model = ModelConfig(
        ModelKind.GPT, layers=12, hidden=32, heads=4, kv_heads=4, head_dim=8, ffn=64, vocab=259,
        positions=64, tied=False,
    )  # fmt: skip
    return build_plan(
        model, schedule=schedule, pp=pp, chunks=chunks, num_microbatches=microbatches, seq=16, dp=2
    )


@pytest.mark.parametrize(
    ("schedule", "pp", "chunks", "m"),
    [("gpipe", 3, 1, 4), ("1f1b", 4, 1, 3), ("interleaved-1f1b", 4, 3, 9), ("zb-h1", 4, 1, 9)],
)
def test_an_order_comes_back_from_its_plan(
    schedule: str, pp: int, chunks: int, m: int, tmp_path: Path
) -> None:
    """Lowering only adds; what it was made from goes to torch like the order itself."""
    plan, order = _built(schedule, pp, chunks, m), make_order(schedule, pp, m, chunks)

    write_torch_csv(plan, tmp_path / "plan.csv", "compute_comms")
    write_torch_csv(order, tmp_path / "order.csv", "compute_comms")

    assert order_of_plan(plan) == order
    assert (tmp_path / "plan.csv").read_bytes() == (tmp_path / "order.csv").read_bytes()


def test_braids_slices_copies_and_two_ranks_of_a_plan_are_works() -> None:
    """Whatever an order can say is read from a plan."""

    def works(name: str) -> list[Work]:
        return [Work(*work) for rank in order_of_plan(_plan(name)).ranks for work in rank]

    assert {work.braid for work in works("braid")} == {-1, 0}
    assert {work.slice for work in works("slices")} == {0, 1}
    assert {Op.OFF, Op.LD} < {work.op for work in works("offload")}
    assert Op.RC in {work.op for work in works("recompute")}
    assert order_of_plan(_plan("stage-on-two-ranks")).placement != ((0,), (1,))


def test_a_braid_of_a_plan_becomes_an_overlap(tmp_path: Path) -> None:
    """Its members in listed order."""
    plan = _plan("braid")

    write_torch_csv(plan, tmp_path / "braid.csv")

    schedule = read_torch_csv(tmp_path / "braid.csv")
    assert schedule.order() == order_of_plan(plan)
    assert any("OVERLAP_F_B" in cell for row in schedule.cells() for cell in row)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("stage-on-two-ranks", "a stage on two ranks"),
        ("slices", "slices"),
        ("offload", "offload"),
        ("recompute", "recomputation"),
        ("free-clock", "validated late"),
        ("override", "replicas with programs of their own"),
        ("parts", "parts of a layer"),
    ],
)
def test_what_torch_cannot_say_of_a_plan_is_refused(name: str, what: str, tmp_path: Path) -> None:
    """The message names it, and nothing is written."""
    with pytest.raises(InvalidInputError, match=what):
        write_torch_csv(_plan(name), tmp_path / "out.csv")

    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_between_passes_is_refused(tmp_path: Path) -> None:
    """Torch steps its optimizer after the schedule."""
    plan = _plan("worked-example")
    program = plan.program(0)
    (step,) = [instruction for instruction in program.instructions if instruction.op is Op.OPT]
    others = [instruction for instruction in program.instructions if instruction.op is not Op.OPT]
    early = replace(plan, programs=(Program(program.name, [step, *others]), *plan.programs[1:]))

    with pytest.raises(InvalidInputError, match="works between passes"):
        write_torch_csv(early, tmp_path / "out.csv")


@pytest.mark.parametrize("path", sorted(VALID.glob("*.plan")), ids=lambda path: path.stem)
def test_every_plan_has_an_order_or_parts(path: Path) -> None:
    """All F of the program lie in the order."""
    plan = load_plan(path)[0]
    if path.stem == "parts":
        with pytest.raises(InvalidInputError, match="parts of a layer"):
            order_of_plan(plan)
        return

    order = order_of_plan(plan)

    forward = [work for rank in range(order.num_ranks) for work in order.works(rank) if work.op is Op.F]
    assert isinstance(forward[0], Work)
    assert len(forward) == order.num_items
