"""Predictions against a record: no part may get worse by a tenth, no row may stop predicting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.published.accuracy import Accuracy

__all__ = ["gate_problems", "read_record"]

_WORSE = 1.10
_FLOOR = 0.005
"""A part may always move by half a percent."""


def read_record(path: str | Path) -> dict[str, Any]:
    """Read what `exactmap validate --record` wrote."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        parts = document["held_out"]["set"], document["predicted_ids"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            "not a record of accuracy",
            where=Place(path),
            got=type(error).__name__,
            hint="write one with --record",
        ) from None
    if not isinstance(parts[0], dict) or not isinstance(parts[1], list):
        raise InvalidInputError("not a record of accuracy", where=Place(path))
    return cast(dict[str, Any], document)


def gate_problems(record: Mapping[str, Any], accuracy: Accuracy) -> list[str]:
    """Return what got worse, one sentence each."""
    return list(_problems(record, accuracy))


def _problems(record: Mapping[str, Any], accuracy: Accuracy) -> Iterator[str]:
    lost = sorted(set(record["predicted_ids"]) - {row.case.id for row in accuracy.rows})
    for name in lost:
        yield f"{name} is no longer predicted"
    now = cast(dict[str, Any], accuracy.to_dict()["held_out"])
    for cut, parts in record["held_out"].items():
        for part, before in parts.items():
            after = now.get(cut, {}).get(part)
            if after is not None and after["mape"] > before["mape"] * _WORSE + _FLOOR:
                yield f"{part}: mean error {after['mape']:.1%}, was {before['mape']:.1%}"
