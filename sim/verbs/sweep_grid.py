"""The points of a sweep: every combination of some settings' values, as overrides of a scenario."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from exactmap.errors import InvalidInputError

__all__ = ["SHORT_NAMES", "Setting", "overrides_of", "points_of", "read_settings"]

SHORT_NAMES = {
    **{
        name: f"parallel.{name}"
        for name in ("tp", "cp", "ep", "pp", "dp", "chunks", "microbatch", "schedule", "zero")
    },
    "network": "cluster.scale_out.bandwidth",
    "batch": "training.batch",
    "sequence": "training.sequence",
    "precision": "training.precision",
    "gpus": "limits.gpus",
    "model": "model",
    "cluster": "cluster",
}
"""Short names of settings, and the fields of a scenario that they stand for."""

_RATE = re.compile(r"\d+(\.\d+)?G")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: its name as the user has it, its field, and its values as text."""

    name: str
    path: str
    values: tuple[str, ...]


def read_settings(texts: Sequence[str]) -> tuple[Setting, ...]:
    """Read ``name=value,value``; commas inside brackets part nothing.

    Raises
    ------
    InvalidInputError
        If there is none, one is no such text, or one is set twice.

    Examples
    --------
    >>> read_settings(["pp=8,16", "parallel.tp=[4,8],[16]"])[1].values
    ('[4,8]', '[16]')
    """
    out: list[Setting] = []
    for text in texts:
        name, sign, rest = text.partition("=")
        values = tuple(part.strip() for part in _parts(rest))
        if not sign or not name.strip() or not all(values):
            raise InvalidInputError(
                "not a setting", where="--set", got=text, expected="name=value,value,.. such as pp=8,16"
            )
        path = SHORT_NAMES.get(name.strip(), name.strip())
        if "." not in path and path not in SHORT_NAMES:
            raise InvalidInputError(
                "unknown setting",
                where="--set",
                got=name,
                expected=f"a field of a scenario such as parallel.tp, or one of {', '.join(SHORT_NAMES)}",
            )
        if any(path == other.path for other in out):
            raise InvalidInputError("a setting stands twice", where="--set", got=text)
        if len(set(values)) != len(values):
            raise InvalidInputError("a value stands twice", where="--set", got=text)
        out.append(Setting(name.strip(), path, values))
    if not out:
        raise InvalidInputError("nothing to sweep", where="--set", expected="at least one name=value,value")
    return tuple(out)


def _parts(text: str) -> list[str]:
    out, depth = [""], 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth <= 0:
            out.append("")
        else:
            out[-1] += char
    return out


def points_of(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    """Every combination of values, the last setting fastest."""
    return list(product(*(setting.values for setting in settings)))


def overrides_of(settings: Sequence[Setting], point: Sequence[str]) -> tuple[str, ...]:
    """A point as overrides, as `exactmap plan --set` takes them; ``400G`` of a network means 400 Gb/s.

    They are sorted by field, a section before its fields, so that the order of settings makes no difference.
    """
    out = []
    for setting, value in sorted(zip(settings, point, strict=True), key=lambda each: each[0].path):
        is_rate = setting.name == "network" and _RATE.fullmatch(value)
        out.append(f"{setting.path}={value[:-1]} Gb/s" if is_rate else f"{setting.path}={value}")
    return tuple(out)
