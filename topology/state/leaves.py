"""Leaf switches as a whole cluster's state sees them: which GPU hangs on which, and what its uplinks carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.fabric.spec import FabricKind

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Ints

__all__ = ["Leaves", "leaves_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Leaf switches of a cluster.

    Parameters
    ----------
    leaf
        [GPUs] leaf of each GPU's first port.
    num_uplinks
        [leaves] uplinks of each, at the rate of an interface's port; 0 where a leaf has none.
    """

    leaf: Ints
    num_uplinks: Ints

    @property
    def num_leaves(self) -> int:
        """Number of leaves."""
        return len(self.num_uplinks)


def leaves_of(cluster: Cluster) -> Leaves:
    """Leaves of a cluster's fabric; with several planes those of the first, which stand for all planes.

    A leaf has as many uplinks as ports to GPUs, divided by the oversubscription of its tier.
    """
    gpus = np.arange(cluster.num_gpus, dtype=np.int64)
    leaf = gpus // cluster.scale_up.domain_size
    num_leaves = int(leaf[-1]) + 1
    attached = np.bincount(leaf, minlength=num_leaves)
    spec = cluster.fabric
    if spec.kind is FabricKind.IDEAL or num_leaves == 1:
        return Leaves(leaf, np.zeros(num_leaves, dtype=np.int64))
    ratio = spec.oversubscription[0] if spec.oversubscription else 1.0
    return Leaves(leaf, np.ceil(attached / ratio).astype(np.int64))
