"""Predictions against a record: no part may get worse by a tenth, no row may stop predicting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes
from exactmap.sim.published.accuracy import Accuracy

__all__ = ["gate_problems", "read_record"]

_WORSE = 1.10
_FLOOR = 0.005
"""A part whose error is small may move by half a percent: there a tenth is less than rounding."""
_ROUNDING = 1e-5
"""Records keep five digits."""
_MOST_BYTES = 64 * 2**20


def read_record(path: str | Path) -> dict[str, Any]:
    """Read what `exactmap validate --record` wrote."""
    try:
        document = json.loads(read_bytes(Path(path), _MOST_BYTES, "record of accuracy"))
    except (ValueError, RecursionError):
        raise _no_record(path, "no JSON") from None
    cuts, ids = (
        (document.get("held_out"), document.get("predicted_ids"))
        if isinstance(document, dict)
        else (None, None)
    )
    if not isinstance(cuts, dict) or not all(isinstance(parts, dict) for parts in cuts.values()):
        raise _no_record(path, "no parts in held_out")
    for parts in cuts.values():
        for name, part in parts.items():
            error = part.get("mape") if isinstance(part, dict) else None
            if not isinstance(error, (int, float)) or not error >= 0:
                raise _no_record(path, f"no mean error of {name}")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise _no_record(path, "no list of names in predicted_ids")
    return cast(dict[str, Any], document)


def _no_record(path: str | Path, got: str) -> InvalidInputError:
    return InvalidInputError(
        "not a record of accuracy", where=Place(path), got=got, hint="write one with --record"
    )


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
            most = max(before["mape"] * _WORSE, before["mape"] + _FLOOR)
            if after is not None and after["mape"] > most + _ROUNDING:
                yield f"{part}: mean error {after['mape']:.1%}, was {before['mape']:.1%}"
