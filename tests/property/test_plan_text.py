"""Whatever stands in a file, reading it ends in a verdict; whatever a plan holds comes back from its text."""

from __future__ import annotations

import importlib.util
import math
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.plan import Instruction, Op, format_instruction, read_plan, verdict, write_plan
from exactmap.sim.plan.text import format_num, parse_instruction


def _strategies() -> ModuleType:
    path = Path(__file__).parents[1] / "strategies.py"
    spec = importlib.util.spec_from_file_location("strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _strategies()
CODES = {row.split("\t")[1] for row in (shared.CORPUS / "verdicts.tsv").read_text().splitlines()[1:]}

items = st.tuples(
    st.integers(0, 99), st.integers(0, 1048575), st.integers(-1, 9), st.sampled_from(["", "attn", "p_2"])
)
slot_sets = st.sets(st.sampled_from("hawgk")).flatmap(
    lambda letters: st.tuples(
        *(st.tuples(st.just(x), st.integers(0, 1048575)) for x in "hawgk" if x in letters)
    )
)
works = st.builds(
    lambda op, item, slots: Instruction(op, *item, slots=slots),
    st.sampled_from([Op.F, Op.RC, Op.I, Op.B, Op.W]), items, slot_sets,
)  # fmt: skip
instructions = st.one_of(
    works,
    st.lists(works, min_size=1, max_size=3).map(lambda members: Instruction(Op.FB, members=tuple(members))),
    st.builds(
        lambda op, item: Instruction(op, *item, -1, "f_1"),
        st.sampled_from([Op.SF, Op.SB, Op.WS, Op.WR]), items,
    ),
    st.builds(
        lambda op, item, phase: Instruction(op, *item, -1, "ep", phase),
        st.sampled_from([Op.A2A_D, Op.A2A_C, Op.KV, Op.WC]), items, st.sampled_from("FIB"),
    ),
    st.builds(
        lambda op, stage, bucket: Instruction(op, stage, bucket=bucket, queue="dp"),
        st.sampled_from([Op.RS, Op.AR, Op.WC]), st.integers(0, 99), st.integers(0, 9),
    ),
    st.builds(lambda op: Instruction(op, queue="norm"), st.sampled_from([Op.NORM, Op.CHK, Op.WC])),
    st.builds(lambda slot: Instruction(Op.ZERO, 1, bucket=0, slots=(("q", slot),)), st.integers(0, 1048575)),
)  # fmt: skip


@given(shared.mutated_plans())
@settings(max_examples=400, deadline=None)
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    """No exception, a known code, a line of the file."""
    found = verdict(data)

    assert found.code in CODES
    assert found.accepted == (found.line == 0)
    assert found.line <= data.count(b"\n") + 1


@given(st.binary(max_size=200))
def test_noise_gets_a_verdict(data: bytes) -> None:
    assert verdict(data).code in CODES


@given(shared.mutated_plans())
@settings(max_examples=200, deadline=None)
def test_an_accepted_plan_survives_writing(data: bytes) -> None:
    """Reading what the writer wrote gives the same plan, the same bytes again and the same verdict."""
    if not verdict(data).accepted:
        return
    plan = read_plan(data)
    written = write_plan(plan)

    assert read_plan(written) == plan
    assert write_plan(read_plan(written)) == written
    assert verdict(written).accepted


@given(instructions)
def test_an_instruction_comes_back_from_its_text(instruction: Instruction) -> None:
    assert parse_instruction(format_instruction(instruction)) == instruction


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_a_number_comes_back_from_its_text(value: float) -> None:
    """Bit for bit, and never longer than Python's own text."""
    text = format_num(value)

    assert math.copysign(1, float(text)) == 1
    assert float(text) == value
    assert len(text) <= len(repr(value))


@pytest.mark.parametrize("name", ["gpipe", "zb-h1", "three-ranks", "two-buckets"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_cycle_names_actors_that_wait_for_each_other(name: str, data: st.DataObject) -> None:
    """Swapped lines that deadlock give a cycle: its lowest actor first, none twice, each at its line."""
    lines = (
        (shared.CORPUS / "valid" / f"{name}.plan")
        .read_bytes()
        .replace(b"serial=no", b"serial=yes")
        .split(b"\n")
    )
    start = lines.index(b"program P0")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(start, len(lines) - 3))
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    text = shared.resealed(b"\n".join(lines))
    found = verdict(text)
    if found.code not in {"graph.deadlock", "graph.serial"}:
        return
    actors = [(actor.dp, actor.pp) for actor in found.cycle]

    assert len(set(actors)) == len(actors) >= 2
    assert actors[0] == min(actors)
    assert found.line == found.cycle[0].line
    assert all(one != other for one, other in pairwise(actors))
    assert all(lines[actor.line - 1].decode() == actor.op for actor in found.cycle)
