"""What every built fabric can answer, whatever its shape."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.links import Ints, LinkTable, Routes

__all__ = ["Fabric", "Spread"]


class Spread(StrEnum):
    """How a flow chooses among equal paths."""

    ECMP = "ecmp"
    """One path by a seeded hash: two flows may collide."""
    SPRAY = "spray"
    """All paths evenly, packet by packet."""


class Fabric(Protocol):
    """A fabric of a given size. GPUs are numbered as in the cluster, spares included."""

    @property
    def spec(self) -> FabricSpec:
        """What was asked for; `num_tiers` is now a number."""
        ...

    @property
    def num_gpus(self) -> int:
        """GPUs attached."""
        ...

    @property
    def links(self) -> LinkTable:
        """Its links, those of all planes."""
        ...

    @property
    def bisection_bytes_per_s(self) -> float:
        """Least rate between two halves of the GPUs, one direction."""
        ...

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """Highest tier on the shortest path of each pair: 0 for a GPU and itself, 1 within a leaf."""
        ...

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Switches and cables on the shortest path of each pair, without the interfaces at its ends."""
        ...

    def leaf(self, gpu: Ints) -> Ints:
        """Leaf switch of each GPU's first port."""
        ...

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair; with ECMP the path hangs on pair, place in the list, seed."""
        ...
