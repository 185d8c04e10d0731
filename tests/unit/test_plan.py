"""Reading and writing plans: bytes, lines, REP, messages, limits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.plan import (
    Instruction,
    Op,
    Plan,
    PlanError,
    Program,
    check_plan,
    find_cycle,
    format_instruction,
    load_plan,
    read_plan,
    verdict,
    write_plan,
)
from exactmap.sim.plan.text import format_num
from exactmap.sim.plan.writer import header_text

CORPUS = Path(__file__).parents[1] / "golden" / "plans"


def plan_of(name: str) -> Plan:
    return read_plan((CORPUS / "valid" / f"{name}.plan").read_bytes(), name)


def body_of(name: str) -> str:
    return (CORPUS / "valid" / f"{name}.plan").read_text(encoding="ascii").split("\n", 2)[2]


def test_rep_stands_for_its_lines_written_out() -> None:
    """The plan with REP runs the same instructions as the one without; lines are those of the file."""
    program = plan_of("rep").programs[0]
    text = (CORPUS / "valid" / "rep.plan").read_text(encoding="ascii").splitlines()

    assert [format_instruction(instruction) for instruction in program.instructions] == [
        *("ZERO 0/0", "F 0.0 h0 a0 w0", "SF 0.0@f", "F 0.1 h1 a1 w1", "SF 0.1@f", "WS 0.0@f", "WS 0.1@f"),
        *("RB 0.0@b h1", "WR 0.0@b", "B 0.0", "RB 0.1@b h0", "WR 0.1@b", "B 0.1", "OPT 0/0", "END"),
    ]
    assert [text[line - 1] for line in program.lines[1:5]] == ["F 0.(i) h(i) a(i) w(i)", "SF 0.(i)@f"] * 2


def test_lines_do_not_make_plans_differ() -> None:
    """A plan equals what is read back from its own text, wherever its lines stood."""
    plan = plan_of("all-information-lines")

    assert read_plan(write_plan(plan)) == plan
    assert replace(plan, header_lines={}) == plan


def test_the_writer_splits_long_information_lines() -> None:
    """Ten thousand costs do not fit one line of 4096 bytes; they come back in order."""
    cost = tuple((f"key{number}", number) for number in range(10_000))
    plan = replace(plan_of("single-stage"), cost=cost)
    written = write_plan(plan)

    assert max(map(len, written.split(b"\n"))) <= 4096
    assert read_plan(written).cost == cost


def test_numbers_without_a_text_are_refused_by_the_writer() -> None:
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="no such number"):
            format_num(value)


def test_a_message_names_rank_line_and_instruction() -> None:
    name = "invalid/prog-slot-lives.plan"
    found = verdict((CORPUS / name).read_bytes(), "x.plan")

    assert found.message == (
        "x.plan:40: prog.slot: rank 0: F 0.1 h0 a1 w1: slot h0 still lives: it was named at line 38\n"
        "hint: a slot ends where section 4 of docs/reference/plan-format.md says"
    )


def test_a_deadlock_names_its_whole_cycle() -> None:
    """The rank that merely waits for the cycle is not part of it."""
    found = verdict(
        (CORPUS / "invalid" / "graph-deadlock-beside-the-lowest-rank.plan").read_bytes(), "x.plan"
    )

    assert [(actor.pp, actor.op) for actor in found.cycle] == [(1, "WS 1.1@f1"), (2, "WS 2.0@b1")]
    assert all(str(actor) in found.message for actor in found.cycle)


def test_a_cycle_between_replicas_names_the_replica() -> None:
    found = verdict((CORPUS / "invalid" / "graph-deadlock-between-replicas.plan").read_bytes())

    assert [(actor.pp, actor.dp) for actor in found.cycle] == [(0, -1), (0, 1)]


def test_valid_plans_come_to_their_end_in_the_games_that_they_claim() -> None:
    """All pass the strict game; those with serial=yes the serial one too, which others fail."""
    for path in sorted((CORPUS / "valid").glob("*.plan")):
        plan = read_plan(path.read_bytes())

        assert find_cycle(plan) == ()
        assert not (plan.serial and find_cycle(plan, serial=True))
    for name in ("not-serial", "override", "three-ranks"):
        assert find_cycle(plan_of(name), serial=True)


def test_plans_made_in_memory_are_checked_without_lines() -> None:
    plan = plan_of("single-stage")
    program = plan.programs[0]
    kept = tuple(one for one in program.instructions if one.op is not Op.OPT)
    broken = replace(plan, programs=(Program(program.name, kept),), header_lines={})
    with pytest.raises(PlanError, match=r"plan: prog\.bucket: rank 0: END: bucket 0/0 has no OPT") as caught:
        check_plan(broken)

    assert caught.value.line == 0


def test_overrides_change_the_program_of_one_replica() -> None:
    plan = plan_of("override")

    assert plan.program(0, 0).name == plan.program(0).name == "P0"
    assert plan.program(0, 1).name == "P0r"
    assert plan.replica_classes() == (-1, 1)
    assert plan_of("all-replicas-overridden").replica_classes() == (0, 1)


def test_an_instruction_knows_its_slots() -> None:
    braid = Instruction(Op.FB, members=(Instruction(Op.F, 1, 2, slots=(("h", 3),)), Instruction(Op.B, 0, 1)))

    assert format_instruction(braid) == "FB{F 1.2 h3|B 0.1}"
    assert braid.members[0].slot("h") == 3
    assert braid.members[1].slot("h") == -1


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_plan(tmp_path / "no.plan")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_plan(tmp_path)


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    """A sparse file of 3 GiB is refused by its size, without 3 GiB of memory."""
    path = tmp_path / "huge.plan"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    start = time.perf_counter()
    with pytest.raises(PlanError, match=r"text\.size") as caught:
        load_plan(path)

    assert caught.value.line == 1
    assert time.perf_counter() - start < 2


def test_a_repetition_bomb_is_refused_before_it_is_written_out() -> None:
    """Few bytes that stand for more than 2^24 instructions cost no memory; braids count by members."""
    braid = "FB{" + "|".join(["F 0.0 a0 w0"] * 20) + "}"
    body = body_of("single-stage").replace("B 0.1\n", f"REP i=0..1048575 {{\n{braid}\n}}\n")
    found = verdict(header_text(body.encode("ascii")))

    assert found.code == "text.rep"
    assert "too many instructions" in found.message


def test_large_declared_sizes_cost_nothing() -> None:
    """A million microbatches that no program runs are missed at once, not searched for."""
    body = body_of("single-stage").replace(" m=2 ", " m=1048575 ")
    start = time.perf_counter()

    assert verdict(header_text(body.encode("ascii"))).code == "pair.work"
    assert time.perf_counter() - start < 1
