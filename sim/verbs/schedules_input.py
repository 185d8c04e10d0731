"""What a gallery of schedules can be asked for: settings that are refused before anything is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from exactmap.errors import InvalidInputError, Place

if TYPE_CHECKING:
    from exactmap.sim.schedules.schedule import Request

__all__ = [
    "Durations",
    "Model",
    "check_model",
    "check_numbers",
    "check_share",
    "check_size",
    "check_target",
    "whole_ns",
]

MAX_WORKS = 4_000_000
MAX_LAYERS = 100_000
MAX_STEP_NS = 2**62


class Durations(NamedTuple):
    """Of all layers of a rank, and of what lies between ranks."""

    f_ns: int
    i_ns: int
    w_ns: int
    hop_ns: int
    copy_ns: int
    braid_share: float


class Model(NamedTuple):
    """Layers, 0: stages are equal; embedding and head in layers."""

    num_layers: int
    embedding: float
    head: float


def _out_of_range(name: str, got: float, expected: str) -> InvalidInputError:
    return InvalidInputError(
        "a number is out of range", where=Place(field=name), got=str(got), expected=expected
    )


def whole_ns(name: str, value: float, least: int) -> int:
    """A duration, rounded to whole nanoseconds."""
    if not isfinite(value) or round(value) < least:
        raise InvalidInputError(
            "a duration is out of range",
            where=Place(field=name),
            got=f"{value} ns",
            expected=f"at least {least} ns",
        )
    return round(value)


def check_numbers(least: int, **numbers: int) -> None:
    """Refuse numbers below the least one."""
    for name, value in numbers.items():
        if value < least:
            raise _out_of_range(name, value, f"at least {least}")


def check_model(model: Model) -> None:
    """Refuse layers that no model has, and parts in layers of a model without layers."""
    if not 0 <= model.num_layers <= MAX_LAYERS:
        raise _out_of_range("layers", model.num_layers, f"from 0 to {MAX_LAYERS:,}")
    for name, value in (("embedding_layers", model.embedding), ("head_layers", model.head)):
        if not (isfinite(value) and value >= 0):
            raise _out_of_range(name, value, "a finite number of at least 0")
        if value and not model.num_layers:
            raise InvalidInputError(
                "what a part costs in layers says nothing of equal stages",
                where=Place(field=name),
                got=str(value),
                hint="say how many layers the model has",
            )


def check_share(braid_share: float) -> None:
    """Refuse braids that take nothing or no number."""
    if not (isfinite(braid_share) and braid_share > 0):
        raise _out_of_range("braid_share", braid_share, "a finite number above 0")


def check_target(out: str | Path | None, torch: str | Path | None) -> None:
    """Refuse names that no figure and no CSV can have."""
    for name, path in (("out", out), ("torch", torch)):
        if path is not None and not str(path).strip():
            raise InvalidInputError("a file without a name", where=Place(field=name), got=repr(str(path)))
    if out is not None and Path(out).suffix.lower() not in {"", ".png"} and not Path(out).is_dir():
        raise InvalidInputError(
            "a figure is written as PNG, or one for each schedule into a folder",
            where=str(out),
            got=Path(out).suffix,
            expected=".png or no suffix",
        )
    if out is not None and torch is not None and Path(out) == Path(torch):
        raise InvalidInputError("figure and CSV would be the same file", where=str(out))


def check_size(requests: Sequence[Request], durations: Durations, model: Model) -> None:
    """Refuse what takes minutes to list, or whose clock overflows."""
    works = sum(2 * q.num_ranks * q.num_microbatches * q.num_chunks * q.num_slices for q in requests)
    if works > MAX_WORKS:
        raise InvalidInputError(
            "too many passes to list schedules for",
            got=f"about {works:,}",
            expected=f"at most {MAX_WORKS:,}",
            hint="name fewer schedules; they keep their ranking at smaller numbers of microbatches",
        )
    heavy = 1 + (model.embedding + model.head) / max(1, model.num_layers)
    passes_ns = (2 * durations.f_ns + durations.i_ns + durations.w_ns) * max(1.0, durations.braid_share)
    # No step is longer than all its passes, messages and copies one after another.
    num = requests[0].num_ranks * requests[0].num_microbatches
    longest_ns = passes_ns * heavy * num + 2.0 * durations.copy_ns * num + float(durations.hop_ns) * works
    if longest_ns > MAX_STEP_NS:
        raise InvalidInputError(
            "durations are so long that the clock could overflow",
            got=f"up to {longest_ns:.2g} ns for a step",
            expected=f"at most {MAX_STEP_NS:.2g} ns",
            hint="is a unit wrong?",
        )
