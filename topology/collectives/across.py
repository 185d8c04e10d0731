"""Ways to carry out a collective over several scale-up domains.

A group has d domains of k members, n = k d; every GPU has an interface of rate w (the tier's share
included) and a small message takes L. S is the full buffer, c = S/n, passes = 2 for an all-reduce and else
1. Ring ::

    steps = passes (n-1), of which passes (d-1) leave a domain
    path  = base + inner steps x step(c) + outer steps x (a_p L + c / (k w))      a piece goes the whole way
    flow  = base + outer steps x a_p L + steps x c / (k w)                        interfaces pass all pieces
    T     = max(path, flow)

Two binary trees over domains: an interface sends f S / k, f = 1, 1.5, 2 for 2, 3, more domains: an inner
node of one tree (half of S, up once and down twice) is a leaf of the other. Members of a domain are a chain
in it, of k-1 hops, which begins at another member in each channel ::

    T = base + 2 (k-1) h + 2 log2(d) a_p L + max(2 S (k-1) / (k r), f S / (k w))

In-switch reduction in domains with trees between them (NVLS tree), or summing switches in the fabric too
(SHARP: an interface sends S/k once), is bound by the norm of its two stages. Hierarchical: scatter inside,
over the interfaces, gather inside, one after the other. LL doubles the bytes of the fabric, LL128 adds
128/120.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.blend import blended_ns, log_ratio
from exactmap.topology.collectives.constants import LinkConstants, NetworkConstants, network_constants
from exactmap.topology.collectives.inside import no_nvls
from exactmap.topology.collectives.model import (
    PIECES,
    num_steps,
    nvls_fill_bytes,
    simple_step_ns,
    step_ns,
    switched,
)
from exactmap.topology.collectives.operations import Algorithm, Collective, num_passes
from exactmap.topology.collectives.times import Candidate, Rejected, Standing
from exactmap.topology.curves import Curves
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape

__all__ = ["Crossing", "reduction_candidates", "ring_candidate"]

Floats = NDArray[np.float64]

_LL128_BYTES = 128 / 120
_LL_BYTES = 2.0

_TUNED_TREE = 0.92
"""Rate that NCCL's tuner gives trees over the bus's."""


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """A group over several domains, with all that its times are made of.

    Parameters
    ----------
    cluster, k, curves
        The machine, its constants, its measured curves.
    op, shape, sizes
        What is asked for.
    """

    cluster: Cluster
    k: LinkConstants
    curves: Curves | None
    op: Collective
    shape: GroupShape
    sizes: Floats

    @property
    def net(self) -> NetworkConstants:
        """Constants of the network."""
        return network_constants()

    @property
    def per_ns(self) -> float:
        """Bytes per ns of one interface at the tier that the group climbs to."""
        return self.cluster.scale_out_bytes_per_s(self.shape.fabric_tier) / 1e9

    @property
    def latency_ns(self) -> float:
        """A small message at that tier."""
        return float(self.cluster.scale_out_latency_ns(self.shape.fabric_tier))

    @property
    def levels(self) -> int:
        """Levels of a binary tree over the domains."""
        return ceil(log2(self.shape.num_domains))

    @property
    def tree_share(self) -> float:
        """Bytes that an interface sends in two binary trees, over its share S/k of the buffer."""
        return {2: 1.0, 3: 1.5}.get(self.shape.num_domains, 2.0)

    def candidate(
        self,
        algorithm: Algorithm,
        standing: Standing,
        total: Floats,
        *,
        latency: float,
        up: Floats,
        out: Floats,
        note: str = "",
    ) -> Candidate:
        """Make a candidate of this group."""
        return Candidate(
            algorithm, standing, total, latency, up, out, note=note, confidence=self.k.confidence
        )


def ring_candidate(x: Crossing) -> Candidate:
    """As many rings as a domain has members."""
    k, net, shape = x.k, x.net, x.shape
    n, width = shape.num_members, shape.per_domain * x.per_ns
    steps = num_steps(x.op, n)
    outer = num_passes(x.op) * (shape.num_domains - 1)
    chunk = x.sizes / n
    inner_ns = np.exp(_ring_ratio(x, n))
    # What a step inside takes by protocol is the low or the high branch of the same law.
    protocols = (
        (k.ll_step_ns + chunk * (1e9 / k.ll_bytes_per_s), net.ring_ll, _LL_BYTES),
        (k.ll128_step_ns + chunk * (1e9 / k.ll128_bytes_per_s), net.ring_ll128, _LL128_BYTES),
        (simple_step_ns(k, chunk), net.ring_simple, 1.0),
    )
    times = []
    for step, share, overhead in protocols:
        hop = share * x.latency_ns
        busy = chunk * overhead / width
        path = (steps - outer) * step * inner_ns + outer * (hop + busy)
        flow = outer * hop + steps * busy
        times.append(np.maximum(path, flow))
    low, simple = np.minimum(times[0], times[1]), times[2]
    is_inside = shape.per_domain > 1
    streamed = switched(k, chunk, steps, low, simple) if is_inside else np.minimum(low, simple)
    total = k.base_ns + streamed + chunk * (1e9 / k.copy_bytes_per_s)
    return x.candidate(
        Algorithm.RING,
        Standing.LIBRARY,
        total,
        latency=k.base_ns + (steps - outer) * k.ll_step_ns + outer * net.ring_ll * x.latency_ns,
        up=(steps - outer) * step_ns(k, chunk, steps) * inner_ns,
        out=steps * chunk / width,
        note=f"{steps} steps of {1.0 / n:.2g} of the buffer",
    )


def _ring_ratio(x: Crossing, num_ranks: int) -> Floats:
    """log(measured / model) of steps inside, from the largest groups measured, by bytes per member."""
    if x.shape.per_domain == 1 or x.op not in {
        Collective.ALL_REDUCE,
        Collective.ALL_GATHER,
        Collective.REDUCE_SCATTER,
    }:
        return np.zeros(len(x.sizes))
    return log_ratio(x.curves, x.k, x.op, num_ranks, x.sizes)


def reduction_candidates(x: Crossing) -> list[Candidate | Rejected]:
    """Ways of an all-reduce, all-gather or reduce-scatter other than the ring."""
    if x.op is not Collective.ALL_REDUCE:
        only = "carries reductions only: all_reduce"
        others = (Algorithm.TREE, Algorithm.NVLS_TREE, Algorithm.SHARP)
        return [*(Rejected(other, only) for other in others), *hierarchical_candidates(x)]
    return [_tree(x), _nvls_tree(x), _sharp(x), *hierarchical_candidates(x)]


def _tree(x: Crossing) -> Candidate:
    k, net, shape = x.k, x.net, x.shape
    chain, rounds = 2 * (shape.per_domain - 1), 2 * x.levels
    width = shape.per_domain * x.per_ns
    # Before switches summed, the tuner gave trees 0.92 of half the bus against a ring's n / 2(n-1): whatever
    # is bound by interfaces took the ring, two domains of A100 at line rate and no more.
    share = x.tree_share if x.cluster.scale_up.reduction else 2.0 / _TUNED_TREE
    out = share * x.sizes / width
    # The end of a chain sends nothing on, and every member is that end in some channel.
    twice = 2.0 * x.sizes * (shape.per_domain - 1) / shape.per_domain
    fill = net.tree_chunk_bytes
    protocols = [
        (
            chain * k.ll_step_ns + rounds * net.tree_ll * x.latency_ns,
            twice * (1e9 / (k.stream_bytes_per_s * net.tree_ll_share)),
            _LL_BYTES * out,
        )
    ]
    wide = shape.per_domain > k.tree_max_domain
    if not wide:
        protocols += [
            (
                chain * k.ll128_step_ns + rounds * net.tree_ll128 * x.latency_ns,
                twice * (1e9 / k.ll128_bytes_per_s),
                _LL128_BYTES * out,
            ),
            (
                chain * (k.simple_step_ns + fill * 1e9 / k.stream_bytes_per_s)
                + rounds * (net.tree_simple * x.latency_ns + fill / width),
                twice * (1e9 / k.stream_bytes_per_s),
                out,
            ),
        ]
    times = [latency + np.maximum(up, across) for latency, up, across in protocols]
    return x.candidate(
        Algorithm.TREE,
        Standing.LIBRARY,
        k.base_ns + np.minimum.reduce(times),
        latency=k.base_ns + protocols[0][0],
        up=twice * (1e9 / k.stream_bytes_per_s),
        out=out,
        note=f"chains of {shape.per_domain} members take the LL protocol only" if wide else "",
    )


def _nvls_tree(x: Crossing) -> Candidate | Rejected:
    reason = no_nvls(x.cluster, x.k, x.op, x.shape.per_domain)
    if not reason and x.shape.per_domain > x.k.tree_max_domain:
        reason = (
            f"no run over domains of {x.shape.per_domain} GPUs is known to take it; that of 1,440 took a ring"
        )
    if reason:
        return Rejected(Algorithm.NVLS_TREE, reason)
    return _in_switch(x, Algorithm.NVLS_TREE, x.tree_share, 2 * x.levels * x.net.nvls_tree * x.latency_ns)


def _sharp(x: Crossing) -> Candidate | Rejected:
    switches = x.cluster.fabric.switches
    reason = no_nvls(x.cluster, x.k, x.op, x.shape.per_domain)
    if not switches or not all(switch.reduction for switch in switches):
        names = ", ".join(switch.name for switch in switches) or "of an unknown fabric"
        reason = f"the switches {names} sum nothing"
    if reason:
        return Rejected(Algorithm.SHARP, reason)
    return _in_switch(x, Algorithm.SHARP, 1.0, x.net.sharp * x.latency_ns)


def _in_switch(x: Crossing, algorithm: Algorithm, share: float, hops_ns: float) -> Candidate:
    """Reduction in the switches of domains, `share` of S/k over each interface."""
    k, p = x.k, x.net.overlap
    up = x.sizes * (1e9 / k.nvls_bytes_per_s)
    out = share * x.sizes / (x.shape.per_domain * x.per_ns)
    fill = nvls_fill_bytes(k, x.shape.per_domain, x.sizes) * (1e9 / k.nvls_bytes_per_s)
    latency = k.nvls_base_ns + hops_ns
    is_sharp = algorithm is Algorithm.SHARP
    return x.candidate(
        algorithm,
        Standing.OPTIONAL if is_sharp else Standing.LIBRARY,
        latency + fill + (up**p + out**p) ** (1.0 / p),
        latency=latency,
        up=up,
        out=out,
        note="needs the SHARP plugin and NCCL_COLLNET_ENABLE" if is_sharp else "",
    )


def hierarchical_candidates(x: Crossing) -> list[Candidate | Rejected]:
    """One level after the other, for frameworks that split a group in two."""
    if x.shape.per_domain == 1:
        only = "one member in each domain: there is nothing to do inside"
        return [
            Rejected(Algorithm.HIERARCHICAL_RING, only),
            Rejected(Algorithm.HIERARCHICAL_TREE, only),
        ]
    parts = (Collective.REDUCE_SCATTER, Collective.ALL_GATHER) if x.op is Collective.ALL_REDUCE else (x.op,)
    inside = sum(
        (blended_ns(x.curves, x.k, part, x.shape.per_domain, x.sizes) for part in parts),
        np.zeros(len(x.sizes)),
    )
    return [
        _after_each_other(x, Algorithm.HIERARCHICAL_RING, inside, _outer_ring),
        _after_each_other(x, Algorithm.HIERARCHICAL_TREE, inside, _outer_tree),
    ]


def _after_each_other(
    x: Crossing, algorithm: Algorithm, inside: Floats, outer: Callable[[Crossing], Floats]
) -> Candidate:
    outside = x.k.base_ns + outer(x)
    sent = num_passes(x.op) * x.sizes * (x.shape.num_domains - 1) / x.shape.num_domains
    return x.candidate(
        algorithm,
        Standing.COMPOSED,
        inside + outside,
        latency=float(inside[0] + outside[0]),
        up=inside,
        out=sent / (x.shape.per_domain * x.per_ns),
        note="needs a framework that splits the group in two",
    )


def _outer_ring(x: Crossing) -> Floats:
    """Ring between equal places of the domains, on S/k."""
    steps = num_passes(x.op) * (x.shape.num_domains - 1)
    busy = x.sizes / x.shape.num_members / x.per_ns
    hops = ((x.net.ring_ll, _LL_BYTES), (x.net.ring_ll128, _LL128_BYTES), (x.net.ring_simple, 1.0))
    times: Floats = np.array([steps * (hop * x.latency_ns + bytes_ * busy) for hop, bytes_ in hops])
    least: Floats = times.min(axis=0)
    return least


def _outer_tree(x: Crossing) -> Floats:
    """All-reduce by two trees; halves that double (or the reverse) for the others."""
    passes, per_place = num_passes(x.op), x.sizes / x.shape.per_domain / x.per_ns
    domains = x.shape.num_domains
    busy = (x.tree_share if x.op is Collective.ALL_REDUCE else (domains - 1) / domains) * per_place
    hops = ((x.net.tree_ll, _LL_BYTES), (x.net.tree_ll128, _LL128_BYTES), (x.net.tree_simple, 1.0))
    rounds = passes * x.levels
    times: Floats = np.array([rounds * hop * x.latency_ns + bytes_ * busy for hop, bytes_ in hops])
    least: Floats = times.min(axis=0)
    return least


def broadcast_candidate(x: Crossing) -> Candidate:
    """A chain through all members, one per interface of a domain, in pieces."""
    k, shape = x.k, x.shape
    hops, outer = shape.num_members - 1, shape.num_domains - 1
    width = shape.per_domain * x.per_ns
    times = []
    for pieces in PIECES:
        part = x.sizes / pieces
        step = step_ns(k, part, hops) if shape.per_domain > 1 else np.zeros(len(part))
        busy = x.net.ring_ll128 * x.latency_ns + part / width
        times.append((hops - outer) * step + outer * busy + (pieces - 1) * np.maximum(step, busy))
    return x.candidate(
        Algorithm.RING,
        Standing.LIBRARY,
        k.base_ns + np.minimum.reduce(times),
        latency=k.base_ns + (hops - outer) * k.ll_step_ns + outer * x.net.ring_ll * x.latency_ns,
        up=x.sizes * (1e9 / k.stream_bytes_per_s) if shape.per_domain > 1 else np.zeros(len(x.sizes)),
        out=x.sizes / width,
        note="a chain in pieces",
    )


def broadcast_tree(x: Crossing) -> Candidate:
    """A binary tree over the domains on S/k for each place, then an all-gather inside."""
    shape = x.shape
    inside = (
        blended_ns(x.curves, x.k, Collective.ALL_GATHER, shape.per_domain, x.sizes)
        if shape.per_domain > 1
        else np.zeros(len(x.sizes))
    )
    # An inner node sends each piece to two others.
    sent = (1.0 if x.levels == 1 else 2.0) * x.sizes / shape.per_domain / x.per_ns
    outside = x.k.base_ns + np.minimum.reduce(
        [x.levels * (x.net.tree_ll128 * x.latency_ns + sent / p) + (p - 1) * sent / p for p in PIECES]
    )
    return x.candidate(
        Algorithm.HIERARCHICAL_TREE,
        Standing.COMPOSED,
        inside + outside,
        latency=float(inside[0] + outside[0]),
        up=inside,
        out=sent,
        note="needs a framework that splits the group in two",
    )
