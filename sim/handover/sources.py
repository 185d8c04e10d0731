"""Names that other projects give their settings, with the version that was looked at.

The names are data (``data/sources.json``); only names that are there are ever handed over, as a test proves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

__all__ = ["Source", "source_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a target's names were read.

    Parameters
    ----------
    project, version, date
        The project, its tag or commit, and the day of that.
    files
        Where in it, or pages.
    names
        The names.
    models
        Of models that it knows by name: their shapes, as a plan's ``model`` line has them.
    """

    project: str
    version: str
    date: str
    files: tuple[str, ...]
    names: frozenset[str]
    models: dict[str, dict[str, object]]

    def __str__(self) -> str:
        """Render as text for a comment."""
        return f"{self.project} {self.version} ({self.date})"


@cache
def source_of(target: str) -> Source:
    """Names of one target.

    Examples
    --------
    >>> "--tensor-model-parallel-size" in source_of("megatron").names
    True
    """
    text = files("exactmap.sim.handover").joinpath("data/sources.json").read_text(encoding="utf-8")
    entry = cast(dict[str, dict[str, Any]], json.loads(text))[target]
    return Source(
        entry["project"],
        entry["version"],
        entry["date"],
        tuple(entry["files"]),
        frozenset(entry["names"]),
        entry.get("models", {}),
    )
