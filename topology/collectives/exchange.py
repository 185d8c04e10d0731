"""Messages between pairs over several scale-up domains: point to point and all-to-all.

Each of n members has S/n for each other; n - k of them are in other domains ::

    direct         each pair by itself: S (n-k)/n through the interface, inside at the same time
    rail-aligned   first over NVLink to the GPU at the receiver's place, whose interface is on its rail (PXN):
                   the same bytes, d-1 messages instead of n-k, and no climb to another rail's leaf
    hierarchical   all-to-all inside, then between equal places: two phases, one after the other

A launch takes `pair_base_ns`, every message `message_ns` of an interface. An all-to-all never gets more
than one interface per GPU. A message alone has no launch: its receiver waits already.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exactmap.topology.collectives.across import Crossing
from exactmap.topology.collectives.blend import blended_ns
from exactmap.topology.collectives.operations import Algorithm, Collective
from exactmap.topology.collectives.times import Candidate, Rejected, Standing

__all__ = ["all_to_all_candidates", "point_to_point_candidate"]


def point_to_point_candidate(x: Crossing) -> Candidate:
    """One message from each member to the next, over the furthest network."""
    busy = x.sizes / x.per_ns
    return x.candidate(
        Algorithm.DIRECT,
        Standing.LIBRARY,
        x.latency_ns + busy,
        latency=x.latency_ns,
        up=np.zeros(len(busy)),
        out=busy,
    )


def all_to_all_candidates(x: Crossing) -> list[Candidate | Rejected]:
    """All ways of an all-to-all over domains."""
    return [_direct(x), _rail_aligned(x), _hierarchical(x)]


def _outside(x: Crossing, num_messages: int) -> tuple[np.ndarray, float]:
    """(interface busy with bytes, time without bytes)."""
    n, k = x.shape.num_members, x.shape.per_domain
    busy = x.sizes * (n - k) / n / x.per_ns
    return busy, x.k.pair_base_ns + x.latency_ns + num_messages * x.net.message_ns


def _direct(x: Crossing) -> Candidate:
    n, k = x.shape.num_members, x.shape.per_domain
    if x.cluster.fabric.rails > 1 and k > 1:
        # Most receivers are on another rail: their leaf is reached over a spine.
        x = replace(x, shape=replace(x.shape, fabric_tier=max(x.shape.fabric_tier, 2)))
    inside = blended_ns(x.curves, x.k, x.op, k, x.sizes * k / n) if k > 1 else np.zeros(len(x.sizes))
    busy, fixed = _outside(x, n - k)
    return x.candidate(
        Algorithm.DIRECT,
        Standing.LIBRARY,
        np.maximum(inside, fixed + busy),
        latency=max(fixed, float(inside[0])),
        up=inside,
        out=busy,
        note=f"{n - k} messages through each interface",
    )


def _rail_aligned(x: Crossing) -> Candidate | Rejected:
    k = x.shape.per_domain
    if k == 1:
        return Rejected(Algorithm.RAIL_ALIGNED, "one member in each domain: there is no other rail to go to")
    if x.cluster.fabric.rails == 1:
        return Rejected(Algorithm.RAIL_ALIGNED, "the fabric has no rails")
    # What leaves crosses NVLink first, beside what stays.
    inside = blended_ns(x.curves, x.k, Collective.ALL_TO_ALL, k, x.sizes)
    busy, fixed = _outside(x, x.shape.num_domains - 1)
    # One launch, which the time inside has in it.
    latency = fixed - x.k.pair_base_ns + float(inside[0])
    return x.candidate(
        Algorithm.RAIL_ALIGNED,
        Standing.LIBRARY,
        latency + np.maximum(inside - inside[0], busy),
        latency=latency,
        up=inside,
        out=busy,
        note=f"{x.shape.num_domains - 1} messages through each interface, all on its own rail",
    )


def _hierarchical(x: Crossing) -> Candidate | Rejected:
    k, domains = x.shape.per_domain, x.shape.num_domains
    if k == 1:
        return Rejected(Algorithm.HIERARCHICAL, "one member in each domain: there is nothing to do inside")
    inside = blended_ns(x.curves, x.k, Collective.ALL_TO_ALL, k, x.sizes)
    busy, fixed = _outside(x, domains - 1)
    return x.candidate(
        Algorithm.HIERARCHICAL,
        Standing.COMPOSED,
        inside + fixed + busy,
        latency=float(inside[0]) + fixed,
        up=inside,
        out=busy,
        note="needs a framework that splits the group in two",
    )
