"""How much the slowest of many ranks holds all of them up (`exactmap.sim.cost.spread`)."""

from __future__ import annotations

from exactmap.sim.cost.spread import largest_of

__all__ = ["largest_of"]
