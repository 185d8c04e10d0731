"""The automatic scheduler: searches orders for measured times under a memory limit."""

from __future__ import annotations

from exactmap.sim.schedules.auto.find import AutoResult, find_order
from exactmap.sim.schedules.auto.problem import Memory

__all__ = ["AutoResult", "Memory", "find_order"]
