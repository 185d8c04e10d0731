"""What traffic does to a fabric: rates, utilisation by tier, hot links, collisions, times."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from exactmap.topology.flows.times import LinkUse
from exactmap.topology.links import Floats, Ints, LinkTable, Routes

__all__ = [
    "Collisions",
    "HotLink",
    "Spreads",
    "TierUse",
    "TrafficReport",
    "collisions",
    "hot_links",
    "tier_series",
    "tier_use",
]

NUM_NAMED = 3
"""Flows of a hot link that are named."""


@dataclass(frozen=True, slots=True)
class Spreads:
    """How values are spread: least, 5 %, median, mean, 95 %, most."""

    least: float
    p5: float
    median: float
    mean: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Floats | Ints) -> Spreads:
        """Of some values; all 0 if there are none."""
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        low, middle, high = (float(part) for part in np.quantile(values, (0.05, 0.5, 0.95)))
        return cls(float(values.min()), low, middle, float(values.mean()), high, float(values.max()))


@dataclass(frozen=True, slots=True)
class TierUse:
    """Links of a tier.

    Parameters
    ----------
    tier
        0 between interfaces and leaves, t between tiers t and t + 1.
    num_links, num_used, num_full
        Links, those that some flow takes, those without any rate left.
    mean, mean_of_used, highest
        Part of their rate that is taken: of all, of those in use, of the fullest.
    """

    tier: int
    num_links: int
    num_used: int
    num_full: int
    mean: float
    mean_of_used: float
    highest: float


@dataclass(frozen=True, slots=True)
class HotLink:
    """A link that flows wait for.

    Parameters
    ----------
    link, name, tier
        Which.
    utilisation
        Part of its rate that is taken.
    wanted
        Part of its rate that its flows would take if nothing but their senders' interfaces held them back.
    num_flows
        Flows on it.
    flows
        Some of them: sender and receiver.
    """

    link: int
    name: str
    tier: int
    utilisation: float
    wanted: float
    num_flows: int
    flows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Collisions:
    """Flows that meet on links between switches.

    Parameters
    ----------
    most_flows
        Flows on the link with most.
    name
        That link.
    links_by_flows
        Links with 1, 2, ... flows.
    slowed
        Part of the flows that are slower than if there were interfaces only.
    mean_if_sprayed
        Mean rate if the same flows were sprayed over all paths; None if it is not known.
    """

    most_flows: int
    name: str
    links_by_flows: dict[int, int]
    slowed: float
    mean_if_sprayed: float | None


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """What traffic does to a fabric.

    Parameters
    ----------
    spread, seed, num_paths
        How flows choose their paths, and over how many by ECMP each is striped.
    num_flows
        Flows through the fabric.
    most_into_one
        Flows to the GPU that most send to.
    bytes_per_s
        Rates of the flows when all send at once.
    total_bytes_per_s
        Their sum.
    tiers
        Utilisation by tier at these rates.
    hot
        Links that flows wait for, the most wanted first.
    collisions
        Flows that meet between switches; None if they are sprayed.
    num_bytes
        Bytes of each flow; 0 if no times were asked for.
    arrive_ns
        When flows that start together are there.
    series
        Utilisation by tier over time, in equal parts of the time until the last flow has ended.
    """

    spread: str
    seed: int
    num_paths: int
    num_flows: int
    most_into_one: int
    bytes_per_s: Spreads
    total_bytes_per_s: float
    tiers: tuple[TierUse, ...]
    hot: tuple[HotLink, ...]
    collisions: Collisions | None
    num_bytes: int = 0
    arrive_ns: Spreads | None = None
    series: dict[int, tuple[float, ...]] | None = None

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        return asdict(self)


def tier_use(table: LinkTable, capacity: Floats, load: Floats) -> tuple[TierUse, ...]:
    """Utilisation by tier.

    Parameters
    ----------
    table
        The links.
    capacity, load
        [links] rate of each, and what is taken of it.
    """
    tiers = table.tier(np.arange(table.num_links))
    part = np.zeros(len(load))
    np.divide(load, capacity, out=part, where=capacity > 0.0)
    found: list[TierUse] = []
    for tier in np.unique(tiers).tolist():
        here = tiers == tier
        used = here & (load > 0.0)
        rate, of_used = float(capacity[here].sum()), float(capacity[used].sum())
        taken = float(load[here].sum())
        found.append(
            TierUse(
                int(tier),
                int(here.sum()),
                int(used.sum()),
                int((part[used] >= 1.0 - 1e-9).sum()),
                taken / rate if rate else 0.0,
                taken / of_used if of_used else 0.0,
                float(part[here].max()),
            )
        )
    return tuple(found)


def hot_links(
    table: LinkTable,
    routes: Routes,
    ends: tuple[Ints, Ints],
    *,
    capacity: Floats,
    load: Floats,
    alone: Floats,
    top: int = 10,
) -> tuple[HotLink, ...]:
    """The full links whose flows want most of them.

    Parameters
    ----------
    table, routes
        The links, and those of each flow.
    ends
        Sender and receiver of each flow.
    capacity, load
        [links] rate of each, and what is taken of it.
    alone
        [flows] rate that each would have if its sender's interface alone held it back.
    top
        How many at most.
    """
    flow = np.repeat(np.arange(routes.num_flows), np.diff(routes.start))
    want = np.bincount(routes.link, routes.share * alone[flow], minlength=len(load))
    full = np.flatnonzero((load > 0.0) & (load >= capacity * (1.0 - 1e-9)) & (want > capacity * (1.0 + 1e-9)))
    order = np.lexsort((full, -(want[full] / capacity[full])))[:top]
    found: list[HotLink] = []
    for link in full[order].tolist():
        flows = flow[routes.link == link]
        pairs = zip(ends[0][flows].tolist(), ends[1][flows].tolist(), strict=True)
        found.append(
            HotLink(
                link,
                table.name(link),
                int(table.tier(np.array([link]))[0]),
                float(load[link] / capacity[link]),
                float(want[link] / capacity[link]),
                len(flows),
                tuple(pair for pair, _ in zip(pairs, range(NUM_NAMED), strict=False)),
            )
        )
    return tuple(found)


def collisions(
    table: LinkTable, routes: Routes, rate: Floats, alone: Floats, mean_if_sprayed: float | None
) -> Collisions:
    """Flows that meet between switches; rates as they are, and as the interfaces alone would have them."""
    between = routes.link[table.tier(routes.link) > 0]
    links, counts = np.unique(between, return_counts=True)
    slowed = float(np.mean(rate < alone * (1.0 - 1e-9))) if len(rate) else 0.0
    if not len(links):
        return Collisions(0, "", {}, slowed, mean_if_sprayed)
    most = int(counts.argmax())
    numbers, how_many = np.unique(counts, return_counts=True)
    by_flows = dict(zip(numbers.tolist(), how_many.tolist(), strict=True))
    return Collisions(int(counts[most]), table.name(int(links[most])), by_flows, slowed, mean_if_sprayed)


def tier_series(table: LinkTable, use: LinkUse, *, parts: int = 50) -> dict[int, tuple[float, ...]]:
    """Utilisation of all links of each tier, over equal parts of the time that was observed."""
    tiers = table.tier(np.arange(table.num_links))
    rate = np.bincount(tiers, use.capacity)
    end_ns = use.to_ns[-1] if use.to_ns else 0
    if end_ns == 0:
        return dict.fromkeys(range(len(rate)), ())
    edges = np.linspace(0.0, end_ns, parts + 1)
    moments = np.unique(np.concatenate((use.from_ns, use.to_ns))).astype(np.float64)
    loads = np.zeros((len(rate), len(moments)))
    starts = np.searchsorted(moments, use.from_ns)
    for place, (links, load) in zip(starts, use.loads, strict=True):
        loads[:, place] = np.bincount(tiers[links], load, minlength=len(rate))
    found: dict[int, tuple[float, ...]] = {}
    for tier in range(len(rate)):
        # Bytes up to each moment, and in between by the rate there.
        steps = loads[tier, :-1] * np.diff(moments)
        sent = np.interp(edges, moments, np.concatenate(([0.0], np.cumsum(steps))))
        found[tier] = tuple((np.diff(sent) / np.diff(edges) / max(rate[tier], 1e-300)).tolist())
    return found
