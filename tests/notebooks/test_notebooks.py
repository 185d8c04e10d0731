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
    "02-schedules": """
assert all(round(row.bubble_steady, 4) == published[row.name] for row in table5)
assert even["zb-h2"].makespan_ns == even["zb-h1"].makespan_ns and even["zb-h2"].bubble_steady == 0
assert fastest[0] == "interleaved-zb v4" and set(fastest[6:]) == {"zb-v"}
assert [by_hop["interleaved-zb v4"][at] > by_hop["zb-h1"][at] for at in (6, 8)] == [False, True]
assert min(by_m, key=lambda label: by_m[label][0]) == "interleaved-zb v2"
assert by_m["zb-v"][4] < 0.05 < 0.2 < by_m["interleaved-zb v2"][1] < by_m["zb-v"][1]
assert [row.peak_stash_microbatches for row in limited["1f1b-offload"]] == [3, 4, 5, 6, 7, 8]
assert len({row.makespan_ns for row in limited["1f1b-offload"]}) == 1
assert [row.peak_stash_microbatches for row in limited["1f1b-selective-recompute"]] == list(range(1, 9))
spread = max(evenly[label][0] for label in evenly) - min(evenly[label][0] for label in evenly)
for label in evenly:
    assert evenly[label][4] - evenly[label][0] > spread
    assert chosen[label][4].makespan_ns < 1.11 * evenly[label][0]
for walked_ns, (replayed, simulated_too) in engines.values():
    assert replayed.same_times(simulated_too) and replayed.e_ns.max() == walked_ns
""",
    "03-stragglers": """
assert alike.result.step.mean_ns == nominal
for losses in slow.values():
    assert losses[0] == 0 and losses == sorted(losses)
assert slow["last stage"][3] > slow["stage 8"][3] > 0
assert 0 < interface[0.9] < interface[0.5] < interface[0.25]
assert uplinks[2] == uplinks[5] == 0 < uplinks[18] < uplinks[36] < uplinks[54]
assert result.slowdown > 0.01 and 0 < result.step.variation < 0.01
assert "rack 61" in [str(entry.component) for entry in result.by_component[:3]]
assert list(times) == sorted(times, reverse=True) and times[-1] > nominal
""",
}
