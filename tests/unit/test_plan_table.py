"""Programs as columns: what goes in comes out again, and nothing that no text can hold goes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactmap.sim.plan import Instruction, Op, format_instruction, read_plan
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.plan.table_text import table_lines

CORPUS = Path(__file__).parents[1] / "golden" / "plans" / "valid"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.plan")), ids=lambda path: path.stem)
def test_columns_give_the_same_instructions_back(path: Path) -> None:
    """Braids, parts, slices, marks and slots of every valid plan of the corpus."""
    for program in read_plan(path.read_bytes()).programs:
        table = InstructionTable.of(program.instructions)

        assert tuple(table) == program.instructions
        assert len(table) == len(program.instructions)
        assert table_lines(table) == [format_instruction(one) for one in program.instructions]


def test_marks_keep_their_names_and_places() -> None:
    instructions = (
        Instruction(Op.MARK, name="one"),
        Instruction(Op.F, 0, 1, slots=(("h", 3), ("w", 2))),
        Instruction(Op.MARK, name="two"),
        Instruction(Op.END),
    )

    assert tuple(InstructionTable.of(instructions)) == instructions
    assert tuple(InstructionTable.of(())) == ()


@pytest.mark.parametrize(
    "slots", [(("a", 0), ("h", 0)), (("h", 0), ("h", 1)), (("z", 0),), (("h", -1),)], ids=str
)
def test_slots_that_no_text_can_hold_are_refused(slots: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"slots stand once|substring not found"):
        InstructionTable.of([Instruction(Op.F, 0, 0, slots=slots)])
