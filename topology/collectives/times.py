"""What a collective takes, and what each way to carry it out would take."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.constants import Confidence
from exactmap.topology.collectives.operations import Algorithm

__all__ = ["Candidate", "CandidateTime", "CollectiveTime", "HopTime", "Rejected", "Standing", "tier_name"]

Floats = NDArray[np.float64]

_TIER_NAMES = ("", "leaf", "spine", "core")


def tier_name(tier: int) -> str:
    """Name of a tier of the fabric.

    Examples
    --------
    >>> tier_name(1), tier_name(4)
    ('leaf', 'tier 4')
    """
    return _TIER_NAMES[tier] if 0 < tier < len(_TIER_NAMES) else f"tier {tier}"


class Standing(StrEnum):
    """Who would take a way to carry out a collective."""

    LIBRARY = "library"
    """The communication library chooses among these by itself."""
    COMPOSED = "composed"
    """A framework has to split the collective over two communicators."""
    OPTIONAL = "optional"
    """The library has it where an operator has turned it on."""


@dataclass(frozen=True, slots=True)
class HopTime:
    """A point-to-point transfer: `wire_ns` occupies the link, `lat_ns` only delays."""

    wire_ns: int
    lat_ns: int


class CollectiveTime(NamedTuple):
    """Time of a collective.

    Parameters
    ----------
    time_ns
        All of it.
    scale_up_ns, scale_out_ns
        How long each network is busy; where the two run at once the parts add to more than the whole.
    algorithm
        The fastest algorithm that the library has, or the one that was asked for.
    latency_ns
        What a buffer of nothing takes.
    confidence
        How well the time is known.
    extrapolated
        Whether size or ranks lie outside what was measured.
    bus_bytes
        Size times the share that crosses each link of a ring.
    tiers
        (tier of the fabric, its part of `scale_out_ns`) as far as the group climbs.
    """

    time_ns: int
    scale_up_ns: int
    scale_out_ns: int
    algorithm: Algorithm
    latency_ns: int = 0
    confidence: Confidence = Confidence.ASSUMED
    extrapolated: bool = True
    bus_bytes: float = 0.0
    tiers: tuple[tuple[str, float], ...] = ()

    @property
    def bus_bytes_per_s(self) -> float:
        """Bus bandwidth as nccl-tests defines it."""
        return self.bus_bytes * 1e9 / self.time_ns if self.time_ns else 0.0

    @property
    def tier_ns(self) -> dict[str, int]:
        """How long the links of each tier are busy: ``scale_up``, then ``leaf``, ``spine``, ``core``."""
        out = {"scale_up": self.scale_up_ns}
        return out | {name: ceil(self.scale_out_ns * part) for name, part in self.tiers}


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to carry out a collective: its times at a grid of sizes, in ns.

    Parameters
    ----------
    algorithm, standing
        What it is and who would take it.
    total
        All of it.
    latency, up, out
        Without bytes; links of the domain busy; links of the fabric busy.
    note
        What it needs or assumes.
    measured
        Sizes between which it is measured, or None.
    confidence
        Of the model.
    """

    algorithm: Algorithm
    standing: Standing
    total: Floats
    latency: float
    up: Floats
    out: Floats
    note: str = ""
    measured: tuple[int, int] | None = None
    confidence: Confidence = Confidence.FITTED
    rows: tuple[list[float], list[float], list[float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep plain lists: a number is looked up faster in those."""
        rows = self.total.tolist(), self.up.tolist(), self.out.tolist()
        object.__setattr__(self, "rows", rows)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A way that this group or machine does not have, and why."""

    algorithm: Algorithm
    reason: str


@dataclass(frozen=True, slots=True)
class CandidateTime:
    """A candidate at one size.

    Parameters
    ----------
    algorithm
        What it is.
    time_ns
        Its time; None if there is no such way here.
    bound
        What decides its time: ``latency``, ``scale-up links``, ``interface``, or a tapered tier.
    chosen
        Whether it was taken.
    why
        Why it was or was not.
    """

    algorithm: Algorithm
    time_ns: int | None
    bound: str
    chosen: bool
    why: str
