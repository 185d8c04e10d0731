"""Flows as chunks that queue at every link: slow, and without a word of fair rates, to check these.

Each link sends one chunk at a time, whole, before the next link has it (store and forward). Waiting chunks
stand in one queue per flow, served in turn (round robin), or in one queue for all, first come first served.
A flow has at most a window of chunks under way; one that arrives lets the next one start. Round robin at each
link with windows long enough gives each flow its max-min fair rate, up to the grain of chunks (Hahne,
Round-Robin Scheduling for Max-Min Fairness in Data Networks, IEEE JSAC 9(7), 1991); first come first served
does not. A window of 8 chunks of 16 KiB is what a 100 Gb/s interface has under way in 10 us.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from heapq import heappop, heappush

from exactmap.errors import InvalidInputError

__all__ = ["Discipline", "chunk_times"]


class Discipline(StrEnum):
    """Whose chunk a link sends next."""

    ROUND_ROBIN = "round_robin"
    """Flows in turn."""
    FIRST_COME = "first_come"
    """The one that has waited longest."""


class _Link:
    """A link: who waits, and what it is sending. A chunk is (flow, path, place on the path, bytes)."""

    def __init__(self, bytes_per_s: float, *, by_flow: bool) -> None:
        self.ns_per_byte = 1e9 / bytes_per_s
        self.by_flow = by_flow
        self.queues: dict[int, deque[_Chunk]] = {}
        self.turns: deque[int] = deque()
        self.is_busy = False

    def put(self, chunk: _Chunk) -> None:
        """Let a chunk wait."""
        key = chunk[0] if self.by_flow else 0
        queue = self.queues.setdefault(key, deque())
        if not queue:
            self.turns.append(key)
        queue.append(chunk)

    def take(self) -> _Chunk | None:
        """The next chunk to send."""
        if not self.turns:
            return None
        key = self.turns.popleft()
        queue = self.queues[key]
        chunk = queue.popleft()
        if queue:
            self.turns.append(key)
        return chunk


_Chunk = tuple[int, int, int, int]


def chunk_times(
    paths: Sequence[Sequence[Sequence[int]]],
    num_bytes: Sequence[int],
    bytes_per_s: Sequence[float],
    *,
    start_ns: Sequence[int] | None = None,
    chunk_bytes: int = 1 << 14,
    window: int = 8,
    discipline: Discipline = Discipline.ROUND_ROBIN,
) -> list[int]:
    """When the last chunk of each flow arrives, in ns.

    Parameters
    ----------
    paths
        [flows][paths][hops] links; chunks take a flow's paths in turn.
    num_bytes
        [flows] bytes of each, at least 1.
    bytes_per_s
        [links] rate of each, above 0.
    start_ns
        [flows] start of each; 0 if left out.
    chunk_bytes
        Bytes of a chunk; the last one is what remains.
    window
        Chunks of a flow under way at most.
    discipline
        Whose chunk goes next.

    Examples
    --------
    Two flows of two chunks share a link of 1 byte/ns; then the second crosses another one:

    >>> chunk_times([[[0]], [[0, 1]]], [200, 200], [1e9, 1e9], chunk_bytes=100)
    [200, 500]
    """
    if min(num_bytes, default=1) < 1 or min(bytes_per_s, default=1.0) <= 0.0:
        raise InvalidInputError("a flow needs bytes, and a link a rate")
    by_flow = discipline is Discipline.ROUND_ROBIN
    links = [_Link(rate, by_flow=by_flow) for rate in bytes_per_s]
    unsent = list(num_bytes)
    under_way = [0] * len(paths)
    sent_chunks = [0] * len(paths)
    ends = [0] * len(paths)
    # (time, order of coming, flow that starts) or (time, order, -1 - link that is done, chunk)
    events: list[tuple[int, int, int, _Chunk | None]] = []
    order = 0
    for flow, at_ns in enumerate(start_ns or [0] * len(paths)):
        events.append((at_ns, order, flow, None))
        order += 1
    events.sort()

    def serve(link: int, now_ns: int) -> None:
        nonlocal order
        if links[link].is_busy:
            return
        chunk = links[link].take()
        if chunk is not None:
            links[link].is_busy = True
            done_ns = now_ns + round(chunk[3] * links[link].ns_per_byte)
            heappush(events, (done_ns, order, -1 - link, chunk))
            order += 1

    def send(flow: int, now_ns: int) -> None:
        while unsent[flow] and under_way[flow] < window:
            size = min(chunk_bytes, unsent[flow])
            path = sent_chunks[flow] % len(paths[flow])
            unsent[flow] -= size
            under_way[flow] += 1
            sent_chunks[flow] += 1
            first = paths[flow][path][0]
            links[first].put((flow, path, 0, size))
            serve(first, now_ns)

    while events:
        now_ns, _, what, chunk = heappop(events)
        if chunk is None:
            send(what, now_ns)
            continue
        link = -1 - what
        links[link].is_busy = False
        flow, path, place, size = chunk
        hops = paths[flow][path]
        if place + 1 < len(hops):
            links[hops[place + 1]].put((flow, path, place + 1, size))
            serve(hops[place + 1], now_ns)
        else:
            under_way[flow] -= 1
            ends[flow] = now_ns
            send(flow, now_ns)
        serve(link, now_ns)
    return ends
