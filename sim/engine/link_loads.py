"""All links that a plan's flows take, and the bytes over each in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exactmap.sim.engine.plan_flows import PlanFlows
    from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["LinkLoads"]


@dataclass(frozen=True, slots=True, eq=False)
class LinkLoads:
    """All links that a plan's flows take, bounded by them or not.

    Parameters
    ----------
    link
        [links] number of each in the fabric.
    tier, bytes_per_s
        [links] tier and payload rate of each.
    num_cables
        [links] links in each, where it is a bundle; else 1.
    flows
        Who sends.
    routes
        Links of the flows, numbered as here.
    """

    link: Ints
    tier: Ints
    bytes_per_s: Floats
    num_cables: Ints
    flows: PlanFlows
    routes: Routes

    def carried_bytes(self, stream_bytes: Ints) -> Floats:
        """[links] bytes over each, where each stream has moved so much."""
        flow = np.repeat(np.arange(self.routes.num_flows), np.diff(self.routes.start))
        moved = stream_bytes.astype(np.float64)[self.flows.stream] * self.flows.factor
        carried: Floats = np.bincount(
            self.routes.link, self.routes.share * moved[flow], minlength=len(self.link)
        ).astype(np.float64)
        return carried
