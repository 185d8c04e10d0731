"""Leaf switches as a cluster's state sees them: which GPU hangs on which, and which uplinks it has."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fat_tree import FatTree

if TYPE_CHECKING:
    from exactmap.topology.fabric.tree_links import TreeLinks
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Floats, Ints

__all__ = ["Leaves", "leaves_of"]

_NAME = re.compile(r"leaf (\d+) > (\w+ \d+)(?: plane (\d+))?(?: cable (\d+))?")


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Leaf switches of a cluster.

    Parameters
    ----------
    leaf
        [GPUs] leaf of each GPU's first port.
    num_uplinks
        [leaves] uplinks of each in one plane, at the rate of an interface's port; 0 where a leaf has none.
    load
        [leaves] part of them that a leaf's GPUs fill when all send at the rate that the taper leaves them:
        1 where all its ports have a GPU that sends.
    num_ports
        Ports to GPUs of each in one plane.
    links
        Links of the fabric; None where leaves have no uplinks.
    """

    leaf: Ints
    num_uplinks: Ints
    load: Floats
    num_ports: int = 1
    links: TreeLinks | None = None

    @property
    def num_leaves(self) -> int:
        """Number of leaves."""
        return len(self.num_uplinks)

    @property
    def num_planes(self) -> int:
        """Planes that a leaf's number stands for."""
        return 1 if self.links is None else self.links.num_planes

    def used_by(self, gpus: Ints) -> Leaves:
        """The same leaves if no other GPUs send than these."""
        senders = np.bincount(self.leaf[gpus.ravel()], minlength=self.num_leaves)
        return replace(self, load=senders / self.num_ports)

    def uplinks(self, name: str, where: Place | None = None) -> Ints:
        """Cables that a name as in reports means, [cables, 3]: leaf, plane, number among the leaf's uplinks.

        ``leaf 3 > spine 1`` names all cables between the two in all planes; plane and cable at its end, as in
        ``leaf 3 > spine 1 plane 0 cable 2``, name one of them.

        Raises
        ------
        InvalidInputError
            If there is no such uplink.
        """
        found = _NAME.fullmatch(" ".join(name.split()))
        if self.links is None:
            raise InvalidInputError(
                "leaves of this fabric have no uplinks",
                where=where,
                got=repr(name),
                hint="its fabric is one switch, or no fat tree: describe it under cluster.fabric",
            )
        if found is None or int(found[1]) >= self.num_leaves:
            raise InvalidInputError(
                "there is no such uplink",
                where=where,
                got=repr(name),
                expected=f"a name such as {self.uplink_names(0)[0]!r}, leaves 0 to {self.num_leaves - 1}",
            )
        leaf = int(found[1])
        of_leaf = self.uplink_names(leaf)
        size = len(of_leaf) // self.num_planes
        wanted = f"leaf {leaf} > {found[2]}"
        chosen = [
            (leaf, *divmod(place, size))
            for place, each in enumerate(of_leaf)
            if (each == wanted or each.startswith(f"{wanted} "))
            and (found[3] is None or f" plane {found[3]}" in each)
            and (found[4] is None or each.endswith(f" cable {found[4]}"))
        ]
        if not chosen:
            near = get_close_matches(" ".join(name.split()), of_leaf, 1)
            raise InvalidInputError(
                "there is no such uplink",
                where=where,
                got=repr(name),
                expected=f"one of {len(of_leaf)}: {of_leaf[0]!r} to {of_leaf[-1]!r}",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
        return np.array(chosen, dtype=np.int64)

    def uplink_names(self, leaf: int) -> list[str]:
        """Names of the uplinks of a leaf, plane after plane."""
        links = self.links
        assert links is not None
        first = int(links.fan(1, np.array([leaf]), up=True)[0])
        return [
            links.name(plane * links.plane_links + first + number)
            for plane in range(links.num_planes)
            for number in range(links.fan_size(1))
        ]


def leaves_of(cluster: Cluster) -> Leaves:
    """Leaves of a cluster's fabric; with several planes a number stands for the leaf of each plane.

    Fabrics other than fat trees of two tiers or more have no uplinks.
    """
    fabric = build_fabric(cluster)
    leaf = fabric.leaf(np.arange(cluster.num_gpus, dtype=np.int64))
    attached = np.bincount(leaf)
    if not isinstance(fabric, FatTree) or fabric.shape.num_tiers < 2:
        return Leaves(leaf, np.zeros(len(attached), dtype=np.int64), np.ones(len(attached)))
    num_uplinks = np.full(len(attached), fabric.links.fan_size(1), dtype=np.int64)
    num_ports = fabric.shape.children[0]
    return Leaves(leaf, num_uplinks, attached / num_ports, num_ports, fabric.links)
