"""Models known by name.

The shapes are data (``presets.json``), each with the publication that it was taken from; those made for
exactmap itself say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, cast

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind, StateSpace

__all__ = ["find_preset", "preset_names", "preset_source"]


_BLOCKS: dict[str, Callable[..., object]] = {
    "latent": LatentAttention,
    "experts": Experts,
    "state_space": StateSpace,
}
"""Fields of an entry that are objects themselves."""

_Entry = dict[str, Any]
"""A source, and fields as `ModelConfig` names them; those left out keep their defaults."""


@cache
def _entries() -> dict[str, _Entry]:
    text = files("exactmap.sim.workload").joinpath("presets.json").read_text(encoding="utf-8")
    return cast(dict[str, _Entry], json.loads(text))


def preset_names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(_entries())


def preset_source(name: str) -> str:
    """Publication that a preset was taken from."""
    return str(_find(name)["source"])


def find_preset(name: str) -> ModelConfig:
    """Model of a given name.

    Raises
    ------
    InvalidInputError
        If there is none; the hint names the nearest.

    Examples
    --------
    >>> find_preset("gpt2").num_parameters()
    124439808
    """
    entry = {key: value for key, value in _find(name).items() if key != "source"}
    for field, make in _BLOCKS.items():
        if field in entry:
            entry[field] = make(**entry[field])
    entry["kind"], entry["name"] = ModelKind(entry["kind"]), name
    return ModelConfig(**entry)


def _find(name: str) -> _Entry:
    entry = _entries().get(name)
    if entry is None:
        near = get_close_matches(name, _entries(), 1)
        raise InvalidInputError(
            "unknown model",
            got=repr(name),
            expected=", ".join(_entries()),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    return entry
