"""The record of accuracy is kept: no part got worse by a tenth, no run stopped being predicted."""

from __future__ import annotations

from pathlib import Path

import exactmap

RECORD = Path(__file__).parents[1] / "golden" / "accuracy.json"


def test_predictions_are_as_good_as_the_record_says() -> None:
    """Refresh on purpose: exactmap validate --record tests/golden/accuracy.json --page docs/accuracy.md."""
    report = exactmap.validate(gate=RECORD)

    assert not report.problems
    assert len(report.accuracy.rows) > 2500
