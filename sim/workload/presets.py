"""Models known by name.

The shapes are data (``presets.json``), each with the publication that it was taken from; those made for
exactmap itself say so.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import TypedDict, cast

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.model import ModelConfig, ModelKind

__all__ = ["find_preset", "preset_names", "preset_source"]


class _Entry(TypedDict):
    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    tied: bool
    norm_eps: float
    rope_theta: float
    source: str


@cache
def _entries() -> dict[str, _Entry]:
    text = files("exactmap.sim.workload").joinpath("presets.json").read_text(encoding="utf-8")
    return cast(dict[str, _Entry], json.loads(text))


def preset_names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(_entries())


def preset_source(name: str) -> str:
    """Publication that a preset was taken from."""
    return _find(name)["source"]


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
    entry = _find(name)
    return ModelConfig(
        kind=ModelKind(entry["kind"]),
        layers=entry["layers"],
        hidden=entry["hidden"],
        heads=entry["heads"],
        kv_heads=entry["kv_heads"],
        head_dim=entry["head_dim"],
        ffn=entry["ffn"],
        vocab=entry["vocab"],
        positions=entry["positions"],
        tied=entry["tied"],
        norm_eps=entry["norm_eps"],
        rope_theta=entry["rope_theta"],
        name=name,
    )


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
