"""Part of the grid on which the automatic scheduler meets the hand-made orders."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "auto_grid.py"


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("auto_grid", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "auto_grid", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_never_worse_than_any_hand_made_order_at_equal_memory(grid: ModuleType) -> None:
    """Every eleventh case, one and two chunks, both clocks: never worse, and better in at least half."""
    cases = list(grid.cases())
    rows = [row for case in cases[::11] for row in grid.compare(case)]
    compared = [row for row in rows if row.hand_ns]
    worse = [row for row in compared if row.found.value_ns > row.hand_ns]
    better = [row for row in compared if row.found.value_ns < row.hand_ns]
    assert len(cases) >= 200
    assert not worse
    assert len(better) >= len(compared) / 2
    assert all(row.found.peak_stash <= row.case.stash_limit for row in rows)
    assert all(row.found.lower_bound_ns <= row.found.value_ns for row in rows)


def test_the_page_counts_every_comparison_once(grid: ModuleType) -> None:
    """Better, optimal, equal, worse and alone add up to the rows, and each case has its line."""
    case = grid.Case(2, 4, (1.0, 1.0, 0.5), 0.05, 1.0)
    rows = list(grid.compare(case, least_works=2000))
    page = grid.report(rows, rows, "a command", 1)
    assert sum(grid._count(rows, verdict) for verdict in grid.VERDICTS) == len(rows) == 4
    assert "| 2 | 4 | 1:1:0.5 | 0.05F | 2 |" in page
