"""All that is known of one collective on one group: its ways, on a grid of sizes, and the time at any size.

The ways are priced once for a group, with eight sizes per doubling and those that were measured; a time is
then a straight line between two of them (exact where latency and rate are constant). Inside measured sizes
the measured time holds, and the library's choice with it; elsewhere the fastest of the library's own ways.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.topology.collectives.across import (
    Crossing,
    broadcast_candidate,
    broadcast_tree,
    reduction_candidates,
    ring_candidate,
)
from exactmap.topology.collectives.blend import faded_ratio
from exactmap.topology.collectives.constants import Confidence, link_constants
from exactmap.topology.collectives.exchange import all_to_all_candidates, point_to_point_candidate
from exactmap.topology.collectives.inside import inside_candidates
from exactmap.topology.collectives.operations import Algorithm, Collective, bus_factor
from exactmap.topology.collectives.times import (
    Candidate,
    CandidateTime,
    CollectiveTime,
    Rejected,
    Standing,
    tier_name,
)
from exactmap.topology.curves import Curve, CurveKey, Curves, find_curves
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape

__all__ = ["GroupTimes", "curves_of", "price_group"]

Floats = NDArray[np.float64]

_DOUBLINGS = 46
_PER_DOUBLING = 8
_ROUNDING_NS = 1e-3
"""What is above a whole ns by less is rounding."""
_MAX_KNOWN = 4096


def curves_of(cluster: Cluster) -> Curves | None:
    """What was measured of a cluster's collectives: a user's own go before the catalog's."""
    known = find_curves(cluster.gpu.curves)
    return known if cluster.collectives is None else cluster.collectives.over(known)


def price_group(cluster: Cluster, op: Collective, shape: GroupShape) -> GroupTimes:
    """Price all ways of a collective on a group."""
    curves, k = curves_of(cluster), link_constants(cluster)
    key = CurveKey(op, shape.num_members, shape.num_domains)
    own = curves.by_key.get(key) if curves else None
    grid = 2.0 ** (np.arange(_DOUBLINGS * _PER_DOUBLING + 1) / _PER_DOUBLING)
    sizes = np.unique(np.concatenate([grid, [] if own is None else own.num_bytes]))
    if shape.num_domains == 1:
        ways = inside_candidates(cluster, k, curves, op, shape.num_members, sizes)
    else:
        x = Crossing(cluster, k, curves, op, shape, sizes)
        ways = _calibrated(x, _across(x), own)
    candidates = tuple(way for way in ways if isinstance(way, Candidate))
    return GroupTimes(
        op,
        shape,
        tuple(sizes.tolist()),
        candidates,
        tuple(way for way in ways if isinstance(way, Rejected)),
        tuple(way for way in candidates if way.standing is Standing.LIBRARY),
        tuple(
            (tier_name(tier), cluster.fabric.taper(shape.fabric_tier) / cluster.fabric.taper(tier))
            for tier in range(1, shape.fabric_tier + 1 if shape.num_domains > 1 else 1)
        ),
        bus_factor(op, shape.num_members),
        own.time_ns[-1] if own is not None and shape.num_domains == 1 else 0.0,
    )


def _across(x: Crossing) -> list[Candidate | Rejected]:
    if x.op is Collective.POINT_TO_POINT:
        return [point_to_point_candidate(x)]
    if x.op is Collective.ALL_TO_ALL:
        return all_to_all_candidates(x)
    if x.op is Collective.BROADCAST:
        return [broadcast_candidate(x), broadcast_tree(x)]
    return [ring_candidate(x), *reduction_candidates(x)]


def _calibrated(
    x: Crossing, ways: list[Candidate | Rejected], own: Curve | None
) -> list[Candidate | Rejected]:
    """Scale the ways by what was measured over domains: of another group less and less, the further it is."""
    keys = [key for key in x.curves.by_key if key.op == x.op and key.num_domains > 1] if x.curves else []
    if not keys or x.curves is None:
        return ways
    shape = x.shape

    def distance(key: CurveKey) -> float:
        return abs(log2(key.num_ranks / shape.num_members)) + abs(log2(key.num_domains / shape.num_domains))

    nearest = min(keys, key=lambda key: (distance(key), key))
    curve = x.curves.by_key[nearest]
    measured_shape = GroupShape(
        nearest.num_ranks, nearest.num_ranks // nearest.num_domains, nearest.num_domains, shape.fabric_tier
    )
    at = np.array(curve.num_bytes, dtype=float)
    there = _across(Crossing(x.cluster, x.k, x.curves, x.op, measured_shape, at))
    model = np.minimum.reduce(
        [way.total for way in there if isinstance(way, Candidate) and way.standing is Standing.LIBRARY]
    )
    factor = np.exp(faded_ratio(curve, model, x.sizes) / (1.0 + distance(nearest)))
    measured = None if own is None else (own.num_bytes[0], own.num_bytes[-1])
    return [
        Candidate(
            way.algorithm,
            way.standing,
            way.total * factor,
            way.latency * float(factor[0]),
            # What was faster than the model had its links busy for less, too.
            np.minimum(way.up, way.total * factor),
            np.minimum(way.out, way.total * factor),
            way.note,
            measured if way.standing is Standing.LIBRARY else None,
            way.confidence,
        )
        if isinstance(way, Candidate)
        else way
        for way in ways
    ]


@dataclass(frozen=True, slots=True, eq=False)
class GroupTimes:
    """Times of one collective on one group.

    Parameters
    ----------
    op, shape
        What and where.
    sizes
        The grid, bytes ascending.
    candidates, rejected
        Ways that there are, and ways that there are not.
    automatic
        The candidates that the communication library chooses among by itself; the first is the measured one.
    tiers
        (name, share of the furthest tier's busy time) of each tier of the fabric.
    bus
        Bus bandwidth over size / time.
    end_ns
        Inside a domain: the time of the largest size that was measured, or 0.
    known
        Times that were asked for.
    """

    op: Collective
    shape: GroupShape
    sizes: tuple[float, ...]
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    automatic: tuple[Candidate, ...]
    tiers: tuple[tuple[str, float], ...]
    bus: float
    end_ns: float = 0.0
    known: dict[int, CollectiveTime] = field(default_factory=dict, repr=False)

    def at(self, num_bytes: int, algorithm: Algorithm | None = None) -> CollectiveTime:
        """Time at a size, by the library's choice or a given algorithm.

        Raises
        ------
        InvalidInputError
            If this group has no such algorithm.
        """
        if algorithm is not None:
            return self._compute(num_bytes, algorithm)
        known = self.known.get(num_bytes)
        if known is None:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            known = self.known[num_bytes] = self._compute(num_bytes, None)
        return known

    def _compute(self, num_bytes: int, algorithm: Algorithm | None) -> CollectiveTime:
        sizes = self.sizes
        size = max(1, num_bytes)
        right = min(max(bisect_right(sizes, size), 1), len(sizes) - 1)
        left = right - 1
        share = (size - sizes[left]) / (sizes[right] - sizes[left])
        if algorithm is None:
            chosen, total = self._choose(size, left, share)
        else:
            chosen = self._named(algorithm)
            row = chosen.rows[0]
            total = row[left] + share * (row[right] - row[left])
        _, up, out = chosen.rows
        span = chosen.measured
        is_inside = span is not None and span[0] <= size <= span[1]
        return CollectiveTime(
            ceil(total - _ROUNDING_NS),
            ceil(up[left] + share * (up[right] - up[left]) - _ROUNDING_NS),
            ceil(out[left] + share * (out[right] - out[left]) - _ROUNDING_NS),
            Algorithm.MEASURED if is_inside and algorithm is None else chosen.algorithm,
            ceil(min(chosen.latency, total) - _ROUNDING_NS),
            Confidence.MEASURED if is_inside else chosen.confidence,
            not is_inside,
            num_bytes * self.bus,
            self.tiers,
        )

    def _choose(self, size: float, left: int, share: float) -> tuple[Candidate, float]:
        """What the library takes, and its time."""
        best = self.automatic[0]
        row = best.rows[0]
        total = row[left] + share * (row[left + 1] - row[left])
        span = best.measured
        if span is not None and self.shape.num_domains == 1 and span[0] <= size <= span[1]:
            return best, total
        for other in self.automatic[1:]:
            row = other.rows[0]
            time = row[left] + share * (row[left + 1] - row[left])
            if time < total:
                best, total = other, time
        if self.end_ns and span is not None and size > span[1]:
            # Another way than was measured may be faster from here on, but more bytes take no less time.
            total = max(total, self.end_ns)
        return best, total

    def _named(self, algorithm: Algorithm) -> Candidate:
        for candidate in self.candidates:
            if candidate.algorithm is algorithm or (
                algorithm is Algorithm.MEASURED and candidate.measured is not None
            ):
                return candidate
        reasons = {way.algorithm: way.reason for way in self.rejected}
        why = f": {reasons[algorithm]}" if algorithm in reasons else ""
        raise InvalidInputError(
            f"{self.op} over this group cannot be carried out so{why}",
            got=algorithm.value,
            expected=", ".join(way.algorithm for way in self.candidates),
        )

    def explain(self, num_bytes: int, algorithm: Algorithm | None = None) -> tuple[CandidateTime, ...]:
        """Every way at a size, the fastest first, with what decides it and why it was taken or not."""
        taken = self.at(num_bytes, algorithm)
        name = self.automatic[0].algorithm if taken.algorithm is Algorithm.MEASURED else taken.algorithm
        out: list[CandidateTime] = []
        for way in self.candidates:
            chosen = way.algorithm is name
            time = taken if chosen else self.at(num_bytes, way.algorithm)
            out.append(
                CandidateTime(
                    way.algorithm,
                    time.time_ns,
                    self._bound(time),
                    chosen,
                    _why(way, time, taken, chosen=chosen, forced=algorithm is not None),
                )
            )
        out.sort(key=lambda each: (not each.chosen, each.time_ns or 0, each.algorithm))
        out += [CandidateTime(way.algorithm, None, "", chosen=False, why=way.reason) for way in self.rejected]
        return tuple(out)

    def _bound(self, time: CollectiveTime) -> str:
        if max(time.latency_ns, time.time_ns - time.scale_up_ns - time.scale_out_ns) >= 0.5 * time.time_ns:
            return "latency"
        if time.scale_out_ns <= time.scale_up_ns:
            return "scale-up links"
        tapered = self.tiers and self.tiers[0][1] < 1.0
        return f"tapered {self.tiers[-1][0]}" if tapered else "interface"


def _why(way: Candidate, time: CollectiveTime, taken: CollectiveTime, *, chosen: bool, forced: bool) -> str:
    parts: Sequence[str]
    slower = time.time_ns / taken.time_ns - 1.0 if taken.time_ns else 0.0
    if chosen:
        if forced:
            parts = ("asked for", way.note)
        elif taken.algorithm is Algorithm.MEASURED:
            parts = ("measured at this size, with the library's own choice in it",)
        else:
            parts = ("the fastest that the library has", way.note)
    elif way.standing is not Standing.LIBRARY:
        parts = (f"{100 * slower:+.0f} %", way.note)
    elif slower < 0 and not forced:
        parts = (f"{100 * slower:+.0f} % by the model, but what was measured did without", way.note)
    else:
        parts = (f"{100 * slower:+.0f} %", way.note)
    return "; ".join(part for part in parts if part)
