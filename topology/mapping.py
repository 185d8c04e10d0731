"""Parallel axes laid onto ranks, and ranks laid onto GPUs: the types that the rest of the program asks for.

`exactmap.topology.mesh` has the axes, `exactmap.topology.group_shape` what is said of groups,
`exactmap.topology.placement` ranks on domains by arithmetic; `exactmap.topology.exact_map` has the map that
names every GPU.
"""

from __future__ import annotations

from exactmap.topology.group_shape import GpuBudget, GroupShape, Tier
from exactmap.topology.mesh import DEFAULT_ORDER, Axis, Coords, Mesh
from exactmap.topology.placement import Placement

__all__ = ["DEFAULT_ORDER", "Axis", "Coords", "GpuBudget", "GroupShape", "Mesh", "Placement", "Tier"]
