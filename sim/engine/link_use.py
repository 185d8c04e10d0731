"""What sharing links has cost in one step: by tier, by link, by channel and group."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exactmap.sim.engine.link_clock import LinkClock
    from exactmap.sim.engine.shared_links import SharedLinks
    from exactmap.topology.links import Floats, Ints

__all__ = ["HotLinks", "LinkUse", "QueueDelay", "TierUse", "link_use"]

_MAX_HOT = 10


@dataclass(frozen=True, slots=True)
class TierUse:
    """Links of one tier that the plan's flows take.

    Parameters
    ----------
    tier
        0 between interfaces and leaves, t between tiers t and t + 1.
    num_links
        Links that carried anything.
    carried_bytes
        Payload over all of them.
    mean_use, max_use
        Bytes carried over what could have been carried in the step: of all these links, of the fullest.
    full_ns
        Longest time that one of them held transfers back.
    """

    tier: int
    num_links: int
    carried_bytes: int
    mean_use: float
    max_use: float
    full_ns: int


@dataclass(frozen=True, slots=True)
class HotLinks:
    """Links of a tier that were used alike and were among the most contended.

    Parameters
    ----------
    name
        One of them.
    num_links
        How many they are.
    tier
        Their tier.
    use
        Bytes carried over what could have been carried in the step.
    full_ns
        Time that each held transfers back.
    """

    name: str
    num_links: int
    tier: int
    use: float
    full_ns: int


@dataclass(frozen=True, slots=True)
class QueueDelay:
    """What sharing cost a channel or a group, summed over its lanes or sets of members.

    Parameters
    ----------
    kind
        ``channel`` or ``group``.
    name
        Its name in the plan.
    num_transfers
        Messages or operations that crossed the fabric.
    nominal_ns
        What they would have taken alone.
    delay_ns
        What they took beyond that.
    uneven
        Whether in one of them some GPUs' flows could have gone faster than the slowest.
    """

    kind: str
    name: str
    num_transfers: int
    nominal_ns: int
    delay_ns: int
    uneven: bool


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One step with shared links.

    Parameters
    ----------
    spread, seed, paths
        How flows chose among equal paths.
    step_time_ns, unshared_step_time_ns
        Barrier makespan with links shared, and with every transfer alone.
    num_flows, num_links
        Flows that the plan starts between domains, links that they take.
    num_channel_classes, num_flow_classes
        Classes by symmetry of flows that links can bound: of channels alone, and of all.
    num_sharings
        Different sets of transfers whose fair shares were worked out.
    tiers, hot, delays
        The parts.
    """

    spread: str
    seed: int
    paths: int
    step_time_ns: int
    unshared_step_time_ns: int
    num_flows: int
    num_links: int
    num_channel_classes: int
    num_flow_classes: int
    num_sharings: int
    tiers: tuple[TierUse, ...]
    hot: tuple[HotLinks, ...]
    delays: tuple[QueueDelay, ...]

    @property
    def uneven(self) -> tuple[str, ...]:
        """Channels and groups whose lanes waited for the slowest of their replicas."""
        return tuple(delay.name for delay in self.delays if delay.uneven)

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready document."""
        document: dict[str, object] = asdict(self)
        document["uneven"] = list(self.uneven)
        return document


def link_use(links: SharedLinks, clock: LinkClock, step_time_ns: int, unshared_step_time_ns: int) -> LinkUse:
    """Add up a step that is over."""
    loads = links.loads
    carried = loads.carried_bytes(np.array(clock.moved_bytes, dtype=np.int64))
    room = loads.bytes_per_s * (step_time_ns / 1e9)
    use = np.divide(carried, room, out=np.zeros(len(room)), where=room > 0.0)
    full_ns = clock.full_ns
    return LinkUse(
        spread=links.spread.value,
        seed=links.seed,
        paths=links.paths,
        step_time_ns=step_time_ns,
        unshared_step_time_ns=unshared_step_time_ns,
        num_flows=loads.routes.num_flows,
        num_links=int(loads.num_cables.sum()),
        num_channel_classes=len(links.channels.factor),
        num_flow_classes=len(links.everything.factor),
        num_sharings=clock.num_sharings,
        tiers=_tiers(links, carried, room, use, full_ns),
        hot=_hot(links, use, full_ns),
        delays=_delays(links, clock),
    )


def _tiers(links: SharedLinks, carried: Floats, room: Floats, use: Floats, full: Ints) -> tuple[TierUse, ...]:
    out: list[TierUse] = []
    for tier in np.unique(links.loads.tier[carried > 0.0]).tolist():
        mine = (links.loads.tier == tier) & (carried > 0.0)
        possible, total = float(room[mine].sum()), float(carried[mine].sum())
        out.append(
            TierUse(
                tier=tier,
                num_links=int(links.loads.num_cables[mine].sum()),
                carried_bytes=round(total),
                mean_use=total / possible if possible else 0.0,
                max_use=float(use[mine].max()),
                full_ns=int(full[mine].max()),
            )
        )
    return tuple(out)


def _hot(links: SharedLinks, use: Floats, full_ns: Ints) -> tuple[HotLinks, ...]:
    """Longest full first, then most used; what is alike in both is one entry, named by its lowest link."""
    loads = links.loads
    full = np.flatnonzero(full_ns)
    used = np.round(use[full], 9)
    facts = (loads.tier[full], -used, -full_ns[full])
    order = np.lexsort((full, *facts))
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = np.any([fact[order][1:] != fact[order][:-1] for fact in facts], axis=0)
    out: list[HotLinks] = []
    firsts = np.append(np.flatnonzero(begins), len(order)).tolist()
    for low, high in pairwise(firsts[: _MAX_HOT + 1]):
        numbers = full[order[low:high]]
        lowest = int(numbers[0])
        out.append(
            HotLinks(
                name=links.table.name(int(loads.link[lowest])),
                num_links=int(loads.num_cables[numbers].sum()),
                tier=int(loads.tier[lowest]),
                use=float(use[lowest]),
                full_ns=int(full_ns[lowest]),
            )
        )
    return tuple(out)


def _delays(links: SharedLinks, clock: LinkClock) -> tuple[QueueDelay, ...]:
    """Sums by channel and group, in the plan's order."""
    met: dict[tuple[bool, str], list[int]] = {}
    for number, stream in enumerate(links.streams):
        met.setdefault((stream.is_channel, stream.name), []).append(number)
    return tuple(
        QueueDelay(
            kind="channel" if is_channel else "group",
            name=name,
            num_transfers=sum(clock.num_transfers[number] for number in numbers),
            nominal_ns=sum(clock.nominal_ns[number] for number in numbers),
            delay_ns=sum(clock.delay_ns[number] for number in numbers),
            uneven=any(clock.is_uneven[number] for number in numbers),
        )
        for (is_channel, name), numbers in met.items()
        if any(clock.num_transfers[number] for number in numbers)
    )
