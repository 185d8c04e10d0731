"""Transfers in flight on simpy's clock: they progress at the speed that their links leave them.

Work is counted in 2^-40 ns and speed in multiples of 2^-40, rounded up, so that progress is a product of
integers and does not depend on how often shares change: at speed 1 a transfer takes its nominal duration to
the nanosecond, and what ends at 12.0001 ns ends at 13. All that starts or ends within a nanosecond is seen
together: shares are worked out once, after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, cast

import numpy as np
import simpy

from exactmap.sim.engine.carrier import call_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.shared_links import SharedLinks

    _Active = tuple[tuple[int, float], ...]  #: streams, ascending, each with its nominal rate

__all__ = ["LinkClock", "StreamCarrier"]

_BITS = 40
_FULL = 1 << _BITS
_NOISE = 0.25  # of one unit of speed: what floating point may be off by
_LAST = 2  # after all else of a nanosecond: simpy's events have priority 0 or 1
_MAX_KEPT = 2**25  # numbers that are remembered of sets of transfers met before


@dataclass(slots=True)
class _Flight:
    """A transfer that is under way."""

    rate: float  #: nominal, bytes/s
    left: int  #: work left at `since_ns`, in 2^-40 ns
    since_ns: int
    speed: int
    version: int
    callback: Callable[[simpy.Event], None]
    value: object
    after_ns: int


@dataclass(frozen=True, slots=True)
class _Full:
    """Classes of links that hold transfers back: of the channels' classes, or of those of everything."""

    classes: Ints
    is_channels: bool


class _Afterwards(simpy.Event):
    """What comes after all else of this nanosecond."""

    def __init__(self, env: simpy.Environment, callback: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self.callbacks = [callback]
        self._ok, self._value = True, None
        env.schedule(self, priority=_LAST)  # type: ignore[arg-type]  # simpy names 0 and 1 alone


class LinkClock:
    """All transfers of one step; adds up what sharing has cost."""

    def __init__(self, env: simpy.Environment, links: SharedLinks) -> None:
        num_streams = len(links.streams)
        self.env = env
        self.links = links
        self.num_sharings = 0
        self.num_transfers = [0] * num_streams
        self.moved_bytes = [0] * num_streams
        self.nominal_ns = [0] * num_streams
        self.delay_ns = [0] * num_streams
        self.is_uneven = [False] * num_streams
        self._flights: dict[int, _Flight] = {}
        self._full_ns = {
            is_channels: np.zeros(len(classes.quotient.num_links), dtype=np.int64)
            for is_channels, classes in ((True, links.channels), (False, links.everything))
        }
        self._full = _Full(np.empty(0, dtype=np.int64), is_channels=True)
        self._full_since_ns = 0
        self._is_due = False
        self._version = 0
        self._num_kept = 0
        self._known: dict[_Active, tuple[tuple[int, ...], tuple[bool, ...], _Full]] = {}

    @property
    def full_ns(self) -> Ints:
        """[links of `LinkLoads`] time for which each held transfers back."""
        out = np.zeros(len(self.links.loads.link), dtype=np.int64)
        for is_channels, classes in ((True, self.links.channels), (False, self.links.everything)):
            out[classes.link] += self._full_ns[is_channels][classes.quotient.link_class]
        return out

    def launch(
        self,
        stream: int,
        work_ns: int,
        num_bytes: int,
        callback: Callable[[simpy.Event], None],
        value: object,
        after_ns: int,
    ) -> None:
        """Start a transfer now."""
        now = int(self.env.now)
        self.num_transfers[stream] += 1
        self.moved_bytes[stream] += num_bytes
        self.nominal_ns[stream] += work_ns
        if not work_ns or not num_bytes or not self.links.everything.bounds(stream):
            call_at(self.env, now + work_ns + after_ns, callback, value)
            return
        assert stream not in self._flights, "a stream moves one transfer at a time"
        rate = num_bytes * 1e9 / work_ns
        self._flights[stream] = _Flight(rate, work_ns << _BITS, now, 0, -1, callback, value, after_ns)
        self.delay_ns[stream] -= now + work_ns
        self._change()

    def _change(self) -> None:
        """See to it that shares are worked out once all that happens in this nanosecond has happened."""
        if self._is_due:
            return
        self._is_due = True
        _Afterwards(self.env, self._share)

    def _share(self, _: simpy.Event) -> None:
        """Give every transfer its speed, and the time at which it then ends."""
        self._is_due = False
        now = int(self.env.now)
        self._full_ns[self._full.is_channels][self._full.classes] += now - self._full_since_ns
        self._full_since_ns = now
        active = tuple((stream, self._flights[stream].rate) for stream in sorted(self._flights))
        speeds, uneven, self._full = self._shares(active)
        for (stream, _rate), speed, is_uneven in zip(active, speeds, uneven, strict=True):
            flight = self._flights[stream]
            self.is_uneven[stream] |= is_uneven
            if speed == flight.speed:
                continue
            flight.left -= (now - flight.since_ns) * flight.speed
            flight.since_ns, flight.speed = now, speed
            self._version += 1
            flight.version = self._version
            call_at(self.env, now - (-flight.left // speed), self._end, (stream, self._version))

    def _shares(self, active: _Active) -> tuple[tuple[int, ...], tuple[bool, ...], _Full]:
        known = self._known.get(active)
        if known is not None:
            return known
        is_channels = all(self.links.streams[stream].is_channel for stream, _ in active)
        if not active:
            return (), (), _Full(np.empty(0, dtype=np.int64), is_channels=is_channels)
        self.num_sharings += 1
        shares = (self.links.channels if is_channels else self.links.everything).shares(active)
        speeds = tuple(min(max(ceil(speed * _FULL - _NOISE), 1), _FULL) for speed in shares.speed.tolist())
        found = speeds, tuple(shares.uneven.tolist()), _Full(shares.full, is_channels=is_channels)
        self._num_kept += 4 * len(active) + len(shares.full)
        if self._num_kept > _MAX_KEPT:
            self._known.clear()
            self._num_kept = 0
        self._known[active] = found
        return found

    def _end(self, event: simpy.Event) -> None:
        """A transfer is over, unless its speed has changed since this was foreseen."""
        stream, version = cast("tuple[int, int]", event.value)
        flight = self._flights.get(stream)
        if flight is None or flight.version != version:
            return
        del self._flights[stream]
        now = int(self.env.now)
        self.delay_ns[stream] += now
        self._change()
        call_at(self.env, now + flight.after_ns, flight.callback, flight.value)


class StreamCarrier:
    """Carries the transfers of one stream."""

    def __init__(self, clock: LinkClock, stream: int) -> None:
        self.clock, self.stream = clock, stream

    def carry(
        self,
        start_ns: int,
        work_ns: int,
        num_bytes: int,
        callback: Callable[[simpy.Event], None],
        value: object = None,
        *,
        after_ns: int = 0,
    ) -> None:
        """Call back `after_ns` later than the end of a transfer that starts at `start_ns`."""

        def launch(_: simpy.Event) -> None:
            self.clock.launch(self.stream, work_ns, num_bytes, callback, value, after_ns)

        call_at(self.clock.env, start_ns, launch)
