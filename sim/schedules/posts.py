"""Find the messages of an order and place their posts and waits, and those of the reductions.

All posts of a step have one global order, that of the moments when their data are made in the walk of the
order. Each rank posts its part of them in that order, send at the producer and receive at the consumer alike.
So an executor that starts a rank's posts one by one still makes progress (`serial=yes`): the first post that
is not complete stands at the head of the queue at all its ends, or a rank is about to reach it, for whatever
a rank waits for was posted later. Copies to and from the host have one end and stand anywhere.

In a gap between two units stand, in order: hand-overs on the same rank, receives that came before the sends,
the sends, waits for sends, later posts, copies, waits for receives. A receive is posted one unit ahead: in
the gap before the unit during which its data are made, so that it stands ready when they are sent, without a
buffer in the channel. A look-ahead of 2 or more moves it further ahead past units without posts, never past a
post; 0 posts it in the gap after that unit, one slot cheaper and sound where the receiver itself moves the
bytes when it waits.

A wait for a send may stand from where, in the walk, the consumer has begun: from there on no mover keeps a
rank waiting, and the *strict* graph has no cycle since all its edges go forward in the walk. The slots'
colouring moves it on to where its slot is wanted again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.gradients import REPLICA_GROUP, TIE_GROUP, Gradients
from exactmap.sim.schedules.openings import Openings
from exactmap.sim.schedules.units import (
    EARLY,
    POST,
    SEND,
    WAIT_RECEIVE,
    WAIT_SEND,
    Ints,
    Units,
    grouped,
    key,
    position_key,
)

__all__ = ["Closers", "HandOvers", "Messages", "Route", "Traffic", "place_posts"]

_PHASES = 16
_F, _I, _B = (CODES[op] for op in (Op.F, Op.I, Op.B))


@dataclass(frozen=True, slots=True)
class Route:
    """What a channel is for: class F or B, from rank `src` to rank `dst`.

    Examples
    --------
    >>> Route("F", 0, 1).channel
    'f0_1'
    """

    cls: str
    src: int
    dst: int

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return f"{self.cls.lower()}{self.src}_{self.dst}"


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """Messages between ranks in the global order; columns of equal length, keys as in `units`."""

    row: Ints  #: the producer, among all works
    item: Ints  #: the producer's
    target: Ints  #: the consumer's item
    backward: NDArray[np.bool_]
    src: Ints
    dst: Ints
    route: Ints
    send_key: Ints
    receive_key: Ints
    wait_receive_key: Ints
    wait_send_key: Ints  #: the earliest place


@dataclass(frozen=True, slots=True, eq=False)
class HandOvers:
    """Outputs that stay on their rank, rank after rank."""

    row: Ints
    target: Ints
    backward: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Closers:
    """Posts that close buckets, in the global order."""

    rank: Ints
    bucket: Ints
    depth: Ints  #: place in the bucket's list of groups
    key: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """All that moves in a step."""

    routes: tuple[Route, ...]
    messages: Messages
    hand_overs: HandOvers
    closers: Closers


@dataclass(frozen=True, slots=True, eq=False)
class _Closing:
    """Closing posts by source and unit of the data that they reduce; columns of equal length."""

    made_ns: Ints
    src: Ints
    unit: Ints  #: on `src`; -1: nothing is ever made
    depth: Ints
    bucket: Ints
    rank: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Messages and closing posts before they are numbered, by source and unit."""

    made_ns: Ints
    src: Ints
    unit: Ints  #: on `src`
    rank: Ints  #: who posts; of a message its receiver
    is_message: NDArray[np.bool_]


def place_posts(units: Units, gradients: Gradients, openings: Openings, look_ahead: int = 1) -> Traffic:
    """Where the posts and waits of messages and reductions stand.

    Parameters
    ----------
    units
        The walked order.
    gradients, openings
        Buckets, and when they open and close.
    look_ahead
        Units ahead of the moment when its data are made that a receive is posted.
    """
    rank_of_item, last_stage = units.order.rank_of_item, units.order.num_stages - 1
    backward = (units.op == _I) | (units.op == _B)
    forward = units.op == _F
    row = np.flatnonzero((forward & (units.stage < last_stage)) | (backward & (units.stage > 0)))
    target = _targets(units, row)
    stays = rank_of_item[units.item[row]] == rank_of_item[target]
    hand_overs = HandOvers(row[stays], target[stays], backward[row[stays]])
    if stays.any():
        row = row[~stays]

    closing = _find_closing(units, gradients, openings)
    events = _merge(units, row, closing)
    number = np.empty(len(events.made_ns), dtype=np.int64)
    number[np.argsort(events.made_ns, kind="stable")] = np.arange(len(number))
    position = _positions(units, events, number, look_ahead)
    earliest = _earliest_waits(units, row)

    places = np.flatnonzero(events.is_message)
    sorting = np.argsort(number[places])
    places = places[sorting]
    routes, messages = _messages(units, row[sorting], number[places], position[places], earliest[sorting])
    places = np.flatnonzero(~events.is_message)
    sorting = np.argsort(number[places])
    places = places[sorting]
    closers = Closers(
        closing.rank[sorting],
        closing.bucket[sorting],
        closing.depth[sorting],
        position_key(position[places], number[places]),
    )
    return Traffic(routes, messages, hand_overs, closers)


def _targets(units: Units, row: Ints) -> Ints:
    """Items that use what some works make."""
    step = units.order.num_microbatches * units.order.num_slices
    return units.item[row] + np.where(units.op[row] == _F, step, -step)


def _users(units: Units, row: Ints) -> Ints:
    """Units, on their own ranks, that use what some works make."""
    target = _targets(units, row)
    return np.where(units.op[row] == _F, units.forward_unit[target], units.backward_unit[target])


def _messages(
    units: Units, row: Ints, number: Ints, position: Ints, earliest: Ints
) -> tuple[tuple[Route, ...], Messages]:
    """Messages in their global order, and the channels that they take."""
    item, target, backward = units.item[row], _targets(units, row), units.op[row] != _F
    src, dst = units.order.rank_of_item[item], units.order.rank_of_item[target]
    routes, route = _routes(units.order.num_ranks, backward, src, dst)
    wait_receive, wait_send = _in_channel_order(route, _users(units, row), earliest)
    return routes, Messages(
        row,
        item,
        target,
        backward,
        src,
        dst,
        route,
        send_key=key(units.unit[row] + 1, SEND, number),
        receive_key=position_key(position, number),
        wait_receive_key=key(wait_receive, WAIT_RECEIVE, number),
        wait_send_key=key(wait_send, WAIT_SEND, number),
    )


def _find_closing(units: Units, gradients: Gradients, openings: Openings) -> _Closing:
    """All closing posts.

    A reduction over replicas is posted when the rank's last pass that adds to the bucket ends; one over
    twins, or over tied copies, when that of the last of them does.
    """
    made: dict[tuple[int, int], tuple[int, int, int]] = {}
    for bucket, declared in enumerate(gradients.buckets):
        for rank in units.order.placement[declared.stage]:
            unit = openings.close_unit[bucket, rank]
            made[bucket, rank] = (int(units.end_ns[rank][unit]) if unit >= 0 else 0, rank, unit)
    tied = [at for at in made if TIE_GROUP in gradients.buckets[at[0]].reduce]
    rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for (bucket, rank), own in made.items():
        declared = gradients.buckets[bucket]
        twins = units.order.placement[declared.stage]
        for depth, group in enumerate(declared.reduce):
            named = bucket
            if group == REPLICA_GROUP:
                latest = own
            elif group == TIE_GROUP:
                latest, named = max(made[at] for at in tied), tied[0][0]
            else:
                latest = max(made[bucket, twin] for twin in twins)
            # Posts whose data one unit makes: first all over replicas, by bucket, then the others; the ends
            # of a tie stand at one place among them.
            rows.append(((*latest[1:], depth, named, rank), (*latest, depth, bucket, rank)))
    rows.sort()
    return _Closing(*np.array([row for _, row in rows], dtype=np.int64).reshape(len(rows), 6).T)


def _merge(units: Units, row: Ints, closing: _Closing) -> _Events:
    """Messages and closing posts by source and unit, the latter behind the messages of their unit.

    A stable sort by time then gives the global order: units of one rank end at different times.
    """
    item, unit = units.item[row], units.unit[row]
    src, dst = units.order.rank_of_item[item], units.order.rank_of_item[_targets(units, row)]
    span = max((units.num_units(rank) for rank in range(units.order.num_ranks)), default=0) + 1
    at = np.searchsorted(src * span + unit, closing.src * span + closing.unit, "right")
    return _Events(
        np.insert(units.made_ns[row], at, closing.made_ns),
        np.insert(src, at, closing.src),
        np.insert(unit, at, closing.unit),
        np.insert(dst, at, closing.rank),
        np.insert(np.ones(len(row), dtype=np.bool_), at, False),
    )


def _positions(units: Units, events: _Events, number: Ints, look_ahead: int) -> Ints:
    """Position (gap * 16 + phase) of each receive and each closer among the posts of its rank."""
    order = units.order
    out = np.empty(len(number), dtype=np.int64)
    by_rank = grouped(events.rank)
    ends = np.searchsorted(events.rank[by_rank], np.arange(order.num_ranks + 1))
    sends_of = np.flatnonzero(events.is_message)
    send_ends = np.searchsorted(events.src[sends_of], np.arange(order.num_ranks + 1))
    for rank in range(order.num_ranks):
        here = by_rank[ends[rank] : ends[rank + 1]]
        sends = sends_of[send_ends[rank] : send_ends[rank + 1]]
        raw = _wanted(units, events, rank, here, events.unit[sends], look_ahead)
        both = np.concatenate((number[here], number[sends]))
        wanted = np.concatenate((raw, (events.unit[sends] + 1) * _PHASES + SEND))
        sorting = np.argsort(both, kind="stable")
        placed = np.empty_like(wanted)
        placed[sorting] = np.maximum.accumulate(wanted[sorting])
        out[here] = placed[: len(here)]
    return out


def _wanted(units: Units, events: _Events, rank: int, here: Ints, send_units: Ints, look_ahead: int) -> Ints:
    """Where posts of one rank would stand if it had no others."""
    starts, ends = units.start_ns[rank], units.end_ns[rank]
    made_ns, src = events.made_ns[here], events.src[here]
    gap = np.searchsorted(ends, made_ns, "right")
    phase = np.full(len(here), POST, dtype=np.int64)
    padded = np.concatenate(([-1], ends))
    sends = np.zeros(len(ends) + 1, dtype=np.bool_)
    sends[send_units + 1] = True
    early = (padded[gap] == made_ns) & sends[gap] & (rank > src)
    phase[early] = EARLY
    message = events.is_message[here]
    if look_ahead == 0:
        begun = np.concatenate((starts, [np.iinfo(np.int64).max]))[gap] < made_ns
        late = ~early & message & begun
        gap[late] += 1
        phase[late] = EARLY
    elif look_ahead > 1:
        ahead = ~early & message
        gap[ahead] = np.maximum(gap[ahead] - (look_ahead - 1), 0)
    own = ~message & (src == rank)
    gap[own], phase[own] = events.unit[here][own] + 1, POST
    return gap * _PHASES + phase


def _earliest_waits(units: Units, row: Ints) -> Ints:
    """For each message the first gap of its sender that begins when its consumer has begun.

    At equal times units count in the order of their ranks: any fixed order avoids cycles.
    """
    first_unit = np.concatenate(([0], np.cumsum([len(starts) for starts in units.start_ns], dtype=np.int64)))
    dst = units.order.rank_of_item[_targets(units, row)]
    begun_ns = np.concatenate(units.start_ns)[first_unit[dst] + _users(units, row)]
    out = np.empty(len(row), dtype=np.int64)
    bounds = np.searchsorted(row, units.first_row)
    for rank in range(units.order.num_ranks):
        here = slice(int(bounds[rank]), int(bounds[rank + 1]))
        begun = begun_ns[here]
        waited = np.searchsorted(units.end_ns[rank], begun) + 1
        after = np.searchsorted(units.start_ns[rank], begun + (rank < dst[here]))
        out[here] = np.maximum(np.minimum(waited, units.num_units(rank)), after)
    return out


def _routes(
    num_ranks: int, backward: NDArray[np.bool_], src: Ints, dst: Ints
) -> tuple[tuple[Route, ...], Ints]:
    """Channels that the messages need, class F first, and the place of each message's among them."""
    code = (backward * num_ranks + src) * num_ranks + dst
    used = np.zeros(2 * num_ranks * num_ranks, dtype=np.bool_)
    used[code] = True
    codes = np.flatnonzero(used)
    place = np.cumsum(used) - 1
    routes = tuple(
        Route("FB"[code // num_ranks**2], code // num_ranks % num_ranks, code % num_ranks)
        for code in codes.tolist()
    )
    return routes, place[code]


def _in_channel_order(route: Ints, user: Ints, begun_at: Ints) -> tuple[Ints, Ints]:
    """Gaps of the waits, so that those of each channel stand in posting order.

    A receive is waited for before its consumer, or before that of a later message which is used sooner; a
    send not before earlier ones.
    """
    sorting = grouped(route)
    span = int(max(user.max(initial=0), begun_at.max(initial=0))) + 1
    offset = route[sorting] * span
    user_gap, begun_gap = np.empty_like(user), np.empty_like(user)
    # Channel by channel in one go: offsets keep a channel's values below those of the next.
    user_gap[sorting] = np.minimum.accumulate((user[sorting] + offset)[::-1])[::-1] - offset
    begun_gap[sorting] = np.maximum.accumulate(begun_at[sorting] + offset) - offset
    return user_gap, begun_gap
