"""Every notebook runs from top to bottom, is committed without outputs, and says what it claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_there_are_notebooks() -> None:
    assert FOLDER / "01-what-if.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]

    assert not [cell.source for cell in cells if cell.outputs or cell.execution_count]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    notebook = read(path)
    # What the notebook must be able to say of itself, whatever it prints: checked on its own variables.
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS.get(path.stem, "")))

    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()


CHECKS = {
    "01-what-if": """
for m in num_microbatches:
    assert steps["interleaved-1f1b", m].step_ns < steps["1f1b", m].step_ns
    assert steps["zb-h1", m].step_ns < steps["1f1b", m].step_ns
bubbles = [steps["1f1b", m].summary.bubble for m in num_microbatches]
assert bubbles == sorted(bubbles, reverse=True)
times = [networks[name].step_ns for name in ("800 Gb/s", "400 Gb/s", "200 Gb/s")]
assert times == sorted(times) and times[0] < times[-1]
""",
}
