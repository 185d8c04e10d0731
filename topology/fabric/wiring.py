"""Numbered nodes and links of a built fabric, and what can be read off them for any shape.

Nodes are numbered GPUs first, then switches, plane after plane. Links are numbered plane after plane too;
planes are equal, so what one needs the others need again. Each cable is two links, one per direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from exactmap.topology.links import Floats, Ints

__all__ = ["Wiring", "pair_key"]


class Wiring(ABC):
    """Link table of a fabric whose links have two ends; it satisfies `exactmap.topology.links.LinkTable`."""

    @property
    @abstractmethod
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""

    @property
    @abstractmethod
    def num_planes(self) -> int:
        """Equal networks side by side."""

    @property
    @abstractmethod
    def plane_links(self) -> int:
        """Links of one plane."""

    @property
    @abstractmethod
    def plane_switches(self) -> int:
        """Switches of one plane."""

    @property
    def num_links(self) -> int:
        """Number of links."""
        return self.num_planes * self.plane_links

    @property
    def num_nodes(self) -> int:
        """GPUs and switches of all planes."""
        return self.num_gpus + self.num_planes * self.plane_switches

    @abstractmethod
    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each link."""

    @abstractmethod
    def tier(self, links: Ints) -> Ints:
        """Tier of each link: 0 between an interface and its leaf, t between tiers t and t + 1."""

    @abstractmethod
    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""

    @abstractmethod
    def node_tier(self, nodes: Ints) -> Ints:
        """Tier of each node: 0 for a GPU, 1 for a leaf."""

    @abstractmethod
    def switch_name(self, switch: int) -> str:
        """Name of a switch inside its plane, such as ``leaf 12``."""

    def lane(self, links: Ints) -> Ints:
        """Place of each link among parallel ones, from 0; negative where there is only one."""
        return np.full(len(links), -1, dtype=np.int64)

    def node_name(self, node: int) -> str:
        """Name of a node; with several planes that of a switch names its plane."""
        if node < self.num_gpus:
            return f"gpu {node}"
        plane, switch = divmod(node - self.num_gpus, self.plane_switches)
        return self.switch_name(switch) + (f" plane {plane}" if self.num_planes > 1 else "")

    def name(self, link: int) -> str:
        """A name that people can find the link by, ``leaf 12 > spine 3``, plane and cable at its end."""
        one = np.array([link], dtype=np.int64)
        first, second = (int(end[0]) for end in self.ends(one))
        plane, lane = link // self.plane_links, int(self.lane(one)[0])
        parts = [f"{self._short(first)} > {self._short(second)}"]
        if self.num_planes > 1:
            parts.append(f"plane {plane}")
        if lane >= 0:
            parts.append(f"cable {lane}")
        return " ".join(parts)

    def _short(self, node: int) -> str:
        if node < self.num_gpus:
            return f"gpu {node}"
        return self.switch_name((node - self.num_gpus) % self.plane_switches)


def pair_key(first: Ints, second: Ints, num_nodes: int) -> Ints:
    """One number for each pair of nodes, whichever comes first."""
    return np.minimum(first, second) * num_nodes + np.maximum(first, second)
