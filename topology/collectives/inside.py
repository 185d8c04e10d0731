"""Ways to carry out a collective inside one scale-up domain."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.blend import blended_ns, faded_ratio
from exactmap.topology.collectives.constants import LinkConstants
from exactmap.topology.collectives.model import nvls_ns
from exactmap.topology.collectives.operations import Algorithm, Collective
from exactmap.topology.collectives.times import Candidate, Rejected, Standing
from exactmap.topology.curves import CurveKey, Curves

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster

__all__ = ["inside_candidates", "no_nvls"]

Floats = NDArray[np.float64]

_MIN_NVLS_RANKS = 3


def inside_candidates(
    cluster: Cluster, k: LinkConstants, curves: Curves | None, op: Collective, num_ranks: int, sizes: Floats
) -> list[Candidate | Rejected]:
    """All ways inside a domain; the first is what was measured, where something was."""
    total = blended_ns(curves, k, op, num_ranks, sizes)
    curve = curves.by_key.get(CurveKey(op, num_ranks)) if curves else None
    is_pairs = op in {Collective.ALL_TO_ALL, Collective.POINT_TO_POINT}
    out: list[Candidate | Rejected] = [
        _candidate(
            Algorithm.DIRECT if is_pairs else Algorithm.RING,
            total,
            k,
            measured=None if curve is None else (curve.num_bytes[0], curve.num_bytes[-1]),
        )
    ]
    reason = no_nvls(cluster, k, op, num_ranks)
    if reason:
        out.append(Rejected(Algorithm.NVLS, reason))
    else:
        out.append(
            _candidate(
                Algorithm.NVLS, nvls_ns(k, num_ranks, sizes) * _user_ratio(cluster, k, num_ranks, sizes), k
            )
        )
    return out


def _user_ratio(cluster: Cluster, k: LinkConstants, num_ranks: int, sizes: Floats) -> Floats:
    """Measured over modelled in-switch reduction, where a user has measured all-reduces of about as many.

    The catalog's curves were measured without it and say nothing of it.
    """
    curves = cluster.collectives
    known = curves.ranks(Collective.ALL_REDUCE) if curves else ()
    if curves is None or not known:
        return np.ones(len(sizes))
    distance = {ranks: abs(log2(ranks / num_ranks)) for ranks in known}
    nearest = min(known, key=lambda ranks: (distance[ranks], ranks))
    curve = curves.by_key[CurveKey(Collective.ALL_REDUCE, nearest)]
    ratio = faded_ratio(curve, nvls_ns(k, nearest, np.array(curve.num_bytes, dtype=float)), sizes)
    return np.exp(ratio / (1.0 + distance[nearest]))


def no_nvls(cluster: Cluster, k: LinkConstants, op: Collective, num_ranks: int) -> str:
    """Why the switches of the domain cannot sum this; empty if they can."""
    if op is not Collective.ALL_REDUCE:
        return "in-switch reduction is modelled for all_reduce only: nothing else has published measurements"
    if not cluster.scale_up.reduction:
        return f"the switches of {cluster.scale_up.name} sum nothing"
    if not k.nvls_bytes_per_s:
        return f"no measurement of in-switch reduction for {k.name}"
    if num_ranks < _MIN_NVLS_RANKS:
        return "needs 3 members in a domain"
    return ""


def _candidate(
    algorithm: Algorithm, total: Floats, k: LinkConstants, measured: tuple[int, int] | None = None
) -> Candidate:
    latency = float(total[0])
    return Candidate(
        algorithm,
        Standing.LIBRARY,
        total,
        latency,
        up=total,
        out=np.zeros(len(total)),
        measured=measured,
        confidence=k.confidence,
    )
