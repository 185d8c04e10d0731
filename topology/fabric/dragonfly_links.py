"""Sizes of a dragonfly and its links by arithmetic: from the number of a link to its ends, tier and name.

Inside a plane come the links of GPUs, up and then down, then the local links by sending router, then the
global ones by sending group and port. Copy c of the cables from group i to group i + j (counted round) sits
on port (j - 1) copies + c of group i, and port q of a group on its router q // h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.links import Floats, Ints

__all__ = ["DragonflyLinks", "DragonflyShape"]


@dataclass(frozen=True, slots=True)
class DragonflyShape:
    """Sizes of one plane.

    Parameters
    ----------
    num_gpus
        GPUs attached.
    endpoints, routers, global_links
        e GPUs per router, a routers per group, h global cables per router.
    """

    num_gpus: int
    endpoints: int
    routers: int
    global_links: int

    @property
    def num_groups(self) -> int:
        """Groups; the last may have fewer GPUs, but has all its routers."""
        return -(-self.num_gpus // (self.endpoints * self.routers))

    @property
    def copies(self) -> int:
        """Global cables between two groups."""
        others = self.num_groups - 1
        return self.routers * self.global_links // others if others else 0

    @property
    def reach(self) -> int:
        """Most GPUs that such groups can join."""
        return self.endpoints * self.routers * (self.routers * self.global_links + 1)


class DragonflyLinks(Wiring):
    """Links of a dragonfly: of GPUs (up, then down), then local, then global, each by its sender."""

    def __init__(self, shape: DragonflyShape, num_planes: int, port_bytes_per_s: float) -> None:
        self.shape = shape
        self._num_planes = num_planes
        self._rate = port_bytes_per_s
        groups, routers = shape.num_groups, shape.routers
        self._first_local = 2 * shape.num_gpus
        self._first_global = self._first_local + groups * routers * (routers - 1)
        self._end = self._first_global + groups * (groups - 1) * shape.copies

    @property
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""
        return self.shape.num_gpus

    @property
    def num_planes(self) -> int:
        """Equal networks side by side."""
        return self._num_planes

    @property
    def plane_links(self) -> int:
        """Links of one plane."""
        return self._end

    @property
    def plane_switches(self) -> int:
        """Routers of one plane."""
        return self.shape.num_groups * self.shape.routers

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each: that of an interface's port."""
        return np.full(len(links), self._rate)

    def tier(self, links: Ints) -> Ints:
        """0 at a GPU, 1 inside a group, 2 between groups."""
        inside = links % self._end
        return (inside >= self._first_local).astype(np.int64) + (inside >= self._first_global)

    def node_tier(self, nodes: Ints) -> Ints:
        """0 for a GPU, 1 for a router."""
        return (nodes >= self.num_gpus).astype(np.int64)

    def switch_name(self, switch: int) -> str:
        """Group and place of a router."""
        group, place = divmod(switch, self.shape.routers)
        return f"router {place} of group {group}"

    def local(self, first: Ints, second: Ints) -> Ints:
        """Link between two routers of one group, inside a plane."""
        place = second % self.shape.routers
        skipped = place - (place > first % self.shape.routers)
        return self._first_local + first * (self.shape.routers - 1) + skipped

    def global_link(self, group: Ints, port: Ints) -> Ints:
        """Global link of a group, inside a plane."""
        return self._first_global + group * (self.shape.num_groups - 1) * self.shape.copies + port

    def port(self, group: Ints, other: Ints, copy: Ints | int) -> Ints:
        """Global port of a group towards another."""
        return ((other - group) % self.shape.num_groups - 1) * self.shape.copies + copy

    def router_of_port(self, group: Ints, port: Ints) -> Ints:
        """Router that a global port sits on."""
        return group * self.shape.routers + port // self.shape.global_links

    def lane(self, links: Ints) -> Ints:
        """Which of the cables between two groups a global link is; negative where there is one."""
        port = (links % self._end - self._first_global) % max(
            (self.shape.num_groups - 1) * self.shape.copies, 1
        )
        is_one_of_many = (links % self._end >= self._first_global) & (self.shape.copies > 1)
        return np.where(is_one_of_many, port % max(self.shape.copies, 1), -1)

    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""
        plane, inside = np.divmod(links, self._end)
        shape = self.shape
        gpu = inside % max(shape.num_gpus, 1)
        base = self.num_gpus + plane * self.plane_switches
        first = np.where(inside < shape.num_gpus, gpu, base + gpu // shape.endpoints)
        second = np.where(inside < shape.num_gpus, base + gpu // shape.endpoints, gpu)
        local = np.flatnonzero((inside >= self._first_local) & (inside < self._first_global))
        router, place = np.divmod(inside[local] - self._first_local, max(shape.routers - 1, 1))
        group, own = np.divmod(router, shape.routers)
        first[local] = base[local] + router
        second[local] = base[local] + group * shape.routers + place + (place >= own)
        far = np.flatnonzero(inside >= self._first_global)
        ports = max((shape.num_groups - 1) * shape.copies, 1)
        group, port = np.divmod(inside[far] - self._first_global, ports)
        offset, copy = np.divmod(port, max(shape.copies, 1))
        other = (group + offset + 1) % shape.num_groups
        back = (shape.num_groups - offset - 2) * shape.copies + copy
        first[far] = base[far] + self.router_of_port(group, port)
        second[far] = base[far] + self.router_of_port(other, back)
        return first, second
