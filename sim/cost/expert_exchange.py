"""Time of sending tokens to their experts: what crosses the scale-up network and what the interfaces.

A token that visits `copies` of n ranks at random reaches n (1 - (1 - 1/n)^copies) distinct ones. DeepEP and
HybridEP send it once to each domain through the interface and once to each rank inside; plain all-to-all
sends every copy apart. The slower of the two networks decides. Shares of the rates are those of DeepEP's
normal kernels in github.com/ai-dynamo/aiconfigurator (Apache-2.0): on 8 H100 4,096 tokens of 7,168 bytes,
top 8 of 256, take 491 us out and twice the bytes 973 us back (275 GB/s, .61 of 450); over 2 and 4 hosts
29 and 79 MB take 749 and 1,791 us (39 and 44 of 50 GB/s); on 4 GB300 79 MB take 354 us (.25 of 900).
HybridEP's are its own (github.com/deepseek-ai/DeepEP, docs/README_Hybrid-EP.md, kernels alone, 32
multiprocessors): 764, 707, 666, 642 GB/s out and 737, 666, 640, 605 back over 8, 16, 24, 32 GB200 (900 GB/s).
"""

from __future__ import annotations

from math import log2

from exactmap.topology.group_shape import GroupShape
from exactmap.topology.hardware import Cluster

__all__ = ["expert_copies", "expert_exchange_ns"]

_WIDE_ROW_BYTES = 14336.0
_START_NS = 25_000.0
"""Notification and first tokens (DeepEP's times at few tokens)."""
_DOMAIN_SHARE = {"deepep": 0.61, "hybridep": 0.83, "all_to_all": 0.72, "all_gather": 0.75}
_ROW_BYTES = 2048.0
"""A token that is as wide as this reaches half the rate of a very wide one: each row has its own address and
flag. An estimate. Shares above are those of rows of 14,336 bytes."""
_HYBRID_LOSS = 0.068
"""Of its share that HybridEP loses for each doubling of ranks beyond 8."""
_DEEPEP_MOST_BYTES_PER_S = 280e9
"""What 24 multiprocessors move."""
_INTERFACE_SHARE = 0.85


def expert_exchange_ns(
    cluster: Cluster,
    shape: GroupShape,
    num_bytes: float,
    copies: int,
    dispatcher: str,
    *,
    most_hosts: int = 0,
    row_bytes: float = _WIDE_ROW_BYTES,
) -> float:
    """Time of one dispatch or combine in ns.

    Parameters
    ----------
    cluster, shape
        The machine and how the expert group lies on it.
    num_bytes
        One copy of a rank's tokens.
    copies
        Experts that a token visits.
    most_hosts
        Domains that a token's experts lie in at most; 0: any.
    row_bytes
        Bytes of one token.
    dispatcher
        `exactmap.sim.workload.training.Software.dispatcher`.
    """
    if shape.num_members == 1 or shape.tier in cluster.ideal:
        return 0.0
    forwarded, outside = expert_copies(shape, copies, dispatcher, most_hosts=most_hosts)
    rate = cluster.scale_up.bytes_per_s * _DOMAIN_SHARE.get(dispatcher, 0.61)
    if dispatcher == "deepep":
        rate = min(rate, _DEEPEP_MOST_BYTES_PER_S)
    if dispatcher == "hybridep" and shape.per_domain > 8:
        rate *= 1.0 - _HYBRID_LOSS * log2(shape.per_domain / 8)
    if dispatcher in ("deepep", "hybridep"):
        rate *= (1 + _ROW_BYTES / _WIDE_ROW_BYTES) / (1 + _ROW_BYTES / row_bytes)
    up_ns = forwarded * num_bytes * 1e9 / rate
    out_ns = outside * num_bytes * 1e9 / (cluster.scale_out.bytes_per_s * _INTERFACE_SHARE)
    return _START_NS + max(up_ns, out_ns)


def expert_copies(
    shape: GroupShape, copies: int, dispatcher: str, *, most_hosts: int = 0
) -> tuple[float, float]:
    """Copies of its tokens that a rank sends in a dispatch: over the scale-up network, through its interface.

    What arrives for others of its domain and is passed on counts as sent once more.

    Parameters
    ----------
    shape, copies, dispatcher, most_hosts
        As in `expert_exchange_ns`.

    Examples
    --------
    >>> expert_copies(GroupShape(8, 8, 1, 1), 4, "all_to_all")
    (3.5, 0.0)
    """
    ranks, domains = shape.num_members, shape.num_domains
    if dispatcher in ("deepep", "hybridep"):
        inside = _distinct(shape.per_domain, copies / domains) * (1 - 1 / ranks)
        reached = min(_distinct(domains, copies), float(most_hosts or domains))
        outside = reached - reached / domains
        return inside * (1 + outside), outside
    if dispatcher == "all_gather":
        return float(ranks - 1), float(ranks - shape.per_domain) / shape.per_domain
    return copies * (shape.per_domain - 1) / ranks, copies * (1 - 1 / domains)


def _distinct(places: int, visits: float) -> float:
    """Expected number of distinct places that so many visits at random reach."""
    return float(places * (1.0 - (1.0 - 1.0 / places) ** visits)) if places > 1 else 1.0 - 0.0**visits
