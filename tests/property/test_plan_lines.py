"""Lines taken as columns say what each line says by itself, and every line that could be taken is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.plan import Instruction, Op, format_instruction, line_columns, read_plan
from exactmap.sim.plan.line_columns import lines_of
from exactmap.sim.plan.program_rows import ProgramRows
from exactmap.sim.plan.text import parse_instruction


def _strategies() -> ModuleType:
    path = Path(__file__).parents[1] / "strategies.py"
    spec = importlib.util.spec_from_file_location("strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _strategies()
LINES = sorted(
    {
        format_instruction(instruction)
        for data in shared.VALID
        for program in read_plan(data).programs
        for instruction in program.instructions
    }
)
INDEX = st.one_of(st.integers(0, 12), st.integers(0, 1048575), st.sampled_from([9, 10, 99, 100, 1048575]))
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
COMMON = [
    *(Op.F, Op.I, Op.W, Op.B, Op.RC, Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR, Op.LF, Op.LB, Op.OFF, Op.LD),
    *(Op.AG, Op.RS, Op.AR, Op.WC, Op.ZERO, Op.OPT, Op.NORM),
]
ITEM_OPS = {"F", "I", "W", "B", "RC"}
MESSAGES = {"SF", "SB", "RF", "RB", "WS", "WR"}


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """An instruction of any common kind with any numbers of the grammar."""
    op = draw(st.sampled_from(COMMON))
    stage, queue = draw(INDEX), draw(NAMES)
    if op is Op.NORM or (op is Op.WC and draw(st.booleans())):
        return Instruction(op, queue=queue)
    if op in {Op.AG, Op.RS, Op.AR, Op.WC, Op.ZERO, Op.OPT}:
        pools = {Op.AG: "p", Op.ZERO: draw(st.sampled_from(["", "q"]))}.get(op, "")
        slots = tuple((pool, draw(INDEX)) for pool in pools)
        return Instruction(
            op, stage, bucket=draw(INDEX), queue="" if op in {Op.ZERO, Op.OPT} else queue, slots=slots
        )
    pools = "".join(draw(st.lists(st.sampled_from("hawgk"), unique=True))) if op in ITEM_OPS else ""
    pools = {Op.RF: "h", Op.RB: "h", Op.OFF: "o", Op.LD: "aw"}.get(op, pools)
    slots = tuple((pool, draw(INDEX)) for pool in sorted(pools, key="hawgkpqo".index))
    cut = draw(st.one_of(st.just(-1), INDEX))
    return Instruction(op, stage, draw(INDEX), cut, queue=queue if op in MESSAGES else "", slots=slots)


def taken(text: bytes) -> list[Instruction | None]:
    """What the columns say of each line; None for lines that are not common."""
    lines = lines_of(text)
    rows = ProgramRows("P", lines, 1)
    for index in range(len(lines.common)):
        if lines.common[index]:
            rows.add_run(index, index + 1)
        else:
            rows.add([Instruction(Op.END)], [index + 1])
    found = rows.program().instructions if rows.num_rows else ()
    return [
        instruction if common else None
        for instruction, common in zip(found, lines.common.tolist(), strict=True)
    ]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a few lines are cut into several chunks."""
    monkeypatch.setattr(line_columns, "_CHUNK_BYTES", 64)


@settings(max_examples=400, deadline=None)
@given(st.lists(instructions(), max_size=12))
def test_any_common_instruction_is_taken_as_it_is(written: list[Instruction]) -> None:
    """But for names of more than 16 bytes."""
    text = "".join(f"{format_instruction(one)}\n" for one in written).encode()
    expected = [one if len(one.queue) <= 16 else None for one in written]

    assert taken(text) == expected


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_a_changed_line_is_taken_only_as_what_it_is(data: st.DataObject) -> None:
    """Lines of the corpus with bytes changed, cut out and put in."""
    lines = [data.draw(st.sampled_from(LINES)) for _ in range(data.draw(st.integers(1, 4)))]
    line = data.draw(st.sampled_from(LINES))
    at = data.draw(st.integers(0, len(line)))
    added = data.draw(st.text(st.sampled_from("0123456789().@:/ hawgkpqoFBSR|{}f1"), max_size=3))
    changed = line[:at] + added + line[at + data.draw(st.integers(0, 2)) :]
    every = [*lines[:2], changed, *lines[2:]]

    for text, said in zip(every, taken("".join(f"{each}\n" for each in every).encode()), strict=True):
        if said is not None:
            assert said == parse_instruction(text)


def test_all_lines_of_a_plan_but_rare_ones_are_common() -> None:
    rare = ("FB{", "A2A", "KV", "MARK", "END", "WC F", "WC I", "WC B")
    text = "".join(f"{line}\n" for line in LINES).encode()

    left = [line for line, said in zip(LINES, taken(text), strict=True) if said is None]

    assert [line for line in left if not line.startswith(rare) and ":" not in line] == []


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"END\n", b"F\n", b"F \n", b"F 1\n", b"F 1.\n", b"SF 1.2@\n", b"WC \n"]
)
def test_the_shortest_lines_are_left_out(text: bytes) -> None:
    assert not any(lines_of(text).common)
    assert lines_of(text).starts.tolist() == ([0] if not text else [0, len(text)])
