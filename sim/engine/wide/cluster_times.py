"""Durations of every work and message of every GPU of a cluster, made from streams when they are asked for.

On top of the nominal time of an instruction stand, in whole ns ::

    work      base x own x host x rack x step factor of the GPU x jitter(GPU, step, draw)
    message   base x slowest interface or uplink on its way     x jitter(sender, step, channel, number)
    group     base x the member's interface or uplinks          x jitter(GPU, step, group, number)

A pass with k collectives of a tensor or context group is k + 1 stretches, each with a draw of its own; after
each the members go on together, so that it takes the sum of the maxima and not the maximum of the sums: for
stretches w[i, member] and collectives c[i] ::

    t = sum over i of (max over members of w[i, member]) + sum of c[i]

The jitter of a stretch is such that the sum of a GPU's own stretches varies as a whole pass does.

Draws are made for some works of some columns at once, in blocks that stay in the cache, and one block is kept
per actor, channel and thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.encoded import KINDS, Ints
from exactmap.sim.engine.wide.hiccups import Hiccups, find_hiccups
from exactmap.sim.engine.wide.jitter import DRAWS_AT_ONCE, HALF, jittered, longest, rows_at_once
from exactmap.sim.engine.wide.work_rows import WorkKind, WorkRows
from exactmap.topology.state.factors import FACTOR_BITS, factor_table, scale
from exactmap.topology.state.streams import DRAWS_PER_WORD, Stream, draws16, stream_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.wide.columns import Columns
    from exactmap.sim.engine.wide.link_factors import LinkFactors
    from exactmap.topology.state.cluster_state import ClusterState

__all__ = ["ClusterTimes"]

_MAX_VARIATION = 1.0
_AXIS = {"ep": 2, "cp": 3, "tp": 4}  # of [works, replicas, ep, cp, tp]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Rows low.. of one actor or channel for columns start..stop-1."""

    start: int
    stop: int
    low: int
    rows: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Actor:
    """What all works of one pipeline rank share in columns start..stop-1."""

    start: int
    stop: int
    keys: NDArray[np.uint64]
    scaled: Ints  #: [kinds of work, 2, columns] a stretch, the last stretch
    hiccups: Hiccups


class ClusterTimes:
    """Durations of all columns; implements `exactmap.sim.engine.wide.columns.WideTimes`.

    Parameters
    ----------
    base
        Nominal durations of the plan, with one lane.
    columns
        The columns; their steps are `first_step`, `first_step` + 1, ..
    links
        Factors on messages and group operations, with plan, map and state.
    rows
        Works of each pipeline rank (`rows_of_plan`).
    step_ns
        Nominal time of a step, for how often hiccups fall into one.
    first_step
        Number of the first step.

    Raises
    ------
    InvalidInputError
        If replicas have programs of their own.
    """

    def __init__(
        self,
        base: Durations,
        columns: Columns,
        links: LinkFactors,
        *,
        rows: Sequence[WorkRows],
        step_ns: int,
        first_step: int = 0,
    ) -> None:
        if len(base.lanes) != 1:
            raise InvalidInputError(
                "replicas with programs of their own cannot be simulated GPU by GPU",
                got=f"{len(base.lanes)} classes",
            )
        self.base = base
        self.links = links
        self.state: ClusterState = links.state
        self.plan = links.plan
        self.first_step = first_step
        self.step_ns = step_ns
        self._columns = columns
        self._inner = columns.ep * columns.cp * columns.tp
        self._per_step = columns.dp * self._inner
        self._actors = [base.actors[0, pp] for pp in range(self.plan.mesh.pp)]
        self._rows = rows
        self._local = threading.local()
        self._factors: dict[tuple[str, int, int, bool], Ints] = {}

    @property
    def columns(self) -> Columns:
        """The columns."""
        return self._columns

    def rows(self, pp: int) -> WorkRows:
        """Works of a pipeline rank."""
        return self._rows[pp]

    @property
    def num_works(self) -> int:
        """Works that take time, over all columns."""
        return sum(len(rows.at) for rows in self._rows) * len(self._columns)

    @property
    def num_messages(self) -> int:
        """Messages, over all columns."""
        return sum(len(channel.wire_ns) for channel in self.base.channels.values()) * len(self._columns)

    def gpus(self, pp: int, columns: slice) -> tuple[Ints, Ints]:
        """GPU and step of columns at a pipeline rank."""
        start, stop = self._span(columns)
        step, place = np.divmod(np.arange(start, stop, dtype=np.int64), self._per_step)
        return self.links.flat[pp][place], step + self.first_step

    def comp_ns(self, pp: int, first: int, last: int, columns: slice) -> Ints:
        """What compute spends on instructions first..last-1 of pipeline rank `pp`: works, posts, else 0."""
        start, stop = self._span(columns)
        rows = self._rows[pp]
        low, high = (int(place) for place in np.searchsorted(rows.at, (first, last)))
        if high - low == last - first:
            return self._works(pp, low, high, start, stop)
        cost = rows.cost_ns[first:last]
        out = np.zeros((last - first, stop - start), dtype=np.int64)
        if cost.any():
            out += cost[:, None]
        if high > low:
            out[rows.at[low:high] - first] = self._works(pp, low, high, start, stop)
        return out

    def works_ns(self, pp: int, indices: Ints, columns: slice) -> Ints:
        """[indices, columns] the same of some instructions, which ascend: waits and notes stay out."""
        start, stop = self._span(columns)
        rows = self._rows[pp]
        low = int(np.searchsorted(rows.at, indices[0])) if len(indices) else 0
        if np.array_equal(rows.at[low : low + len(indices)], indices):
            return self._works(pp, low, low + len(indices), start, stop)
        is_work = rows.is_work[indices]
        out = np.empty((len(indices), stop - start), dtype=np.int64)
        out[~is_work] = rows.cost_ns[indices[~is_work]][:, None]
        at = np.searchsorted(rows.at, indices[is_work])
        if len(at):
            first, last = int(at[0]), int(at[-1]) + 1
            out[is_work] = self._works(pp, first, last, start, stop)[at - first]
        return out

    def op_ns(self, pp: int, index: int, columns: slice) -> Ints:
        """[columns] duration of the group operation or copy that the post `index` starts."""
        start, stop = self._span(columns)
        actor = self._actors[pp]
        base_ns = int(actor.op_ns[index])
        group = int(actor.program.queue[index]) - 2 * len(self.plan.channels)
        if not 0 <= group < len(self.plan.groups) or not base_ns:
            return np.broadcast_to(np.int64(base_ns), (stop - start,))
        op = KINDS[int(actor.program.kind[index])].value
        post = int(np.searchsorted(actor.program.post_at, index))
        number = int(actor.program.order_of_post[post])
        gpu, step = self.gpus(pp, columns)
        factor = self._cached(
            "op", pp, group, op in {"NORM", "CHK"}, lambda: self.links.operation(pp, group, op)
        )
        scaled = scale(np.full(stop - start, base_ns, dtype=np.int64), factor[self._places(start, stop)])
        variation = self.state.spec.interface_jitter
        if not variation:
            return scaled
        keys = stream_keys(self.state.spec.seed, Stream.COLLECTIVE, gpu, step, group)
        word, place = divmod(number, DRAWS_PER_WORD)
        return scale(scaled, factor_table(variation)[draws16(keys, word, word + 1)[0, :, place]])

    def wire_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        """What messages first..last-1 of the plan's channel number `channel` occupy the channel for."""
        start, stop = self._span(columns)
        block = self._kept("wire", channel)
        if block is None or not (
            block.start == start
            and block.stop == stop
            and block.low <= first
            and last <= block.low + len(block.rows)
        ):
            at_once = rows_at_once(stop - start)
            low = first - first % at_once
            high = min(max(low + at_once, last), self._num_messages(channel))
            block = _Block(start, stop, low, self._make_wire(channel, low, high, start, stop))
            self._local.blocks["wire", channel] = block
        return block.rows[first - block.low : last - block.low]

    def lat_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        """What only delays these messages."""
        start, stop = self._span(columns)
        lat_ns = self.base.channels[0, self.plan.channels[channel].name].lat_ns[first:last]
        return np.broadcast_to(lat_ns[:, None], (last - first, stop - start))

    def _span(self, columns: slice) -> tuple[int, int]:
        start, stop, stride = columns.indices(len(self._columns))
        assert stride == 1
        return start, stop

    def _places(self, start: int, stop: int) -> Ints:
        """Columns as places in their step."""
        return np.arange(start, stop, dtype=np.int64) % self._per_step

    def _num_messages(self, channel: int) -> int:
        return len(self.base.channels[0, self.plan.channels[channel].name].wire_ns)

    def _kept(self, what: str, number: int) -> _Block | None:
        blocks: dict[tuple[str, int], _Block] | None = getattr(self._local, "blocks", None)
        if blocks is None:
            self._local.blocks = {}
            self._local.actors = {}
            return None
        return blocks.get((what, number))

    def _cached(self, what: str, pp: int, number: int, scalar: bool, make: Callable[[], Ints]) -> Ints:
        key = (what, pp, number, scalar)
        if key not in self._factors:
            self._factors[key] = make()
        return self._factors[key]

    def _make_wire(self, channel: int, low: int, high: int, start: int, stop: int) -> Ints:
        ends = self.plan.channels[channel]
        base = self.base.channels[0, ends.name].wire_ns
        factor = self._cached("wire", 0, channel, False, lambda: self.links.message(channel))
        scaled = scale(
            np.full(stop - start, int(base[low]), dtype=np.int64), factor[self._places(start, stop)]
        )
        variation = self.state.spec.interface_jitter
        if not variation:
            return np.broadcast_to(scaled, (high - low, stop - start))
        gpu, step = self.gpus(ends.src, slice(start, stop))
        keys = stream_keys(self.state.spec.seed, Stream.MESSAGE, gpu, step, channel)
        out = np.empty((high - low, stop - start), dtype=np.int64)
        which = np.zeros(high - low, dtype=np.int64)
        jittered(keys, factor_table(variation), low, scaled[None], which, out)
        return out

    def _works(self, pp: int, low: int, high: int, start: int, stop: int) -> Ints:
        """Works low..high-1 of a pipeline rank, [works, columns]."""
        block = self._kept("comp", pp)
        if block is None or not (
            block.start == start
            and block.stop == stop
            and block.low <= low
            and high <= block.low + len(block.rows)
        ):
            at_once = rows_at_once(stop - start)
            base = low - low % at_once
            end = min(max(base + at_once, high), len(self._rows[pp].at))
            block = _Block(start, stop, base, self._make_works(pp, base, end, start, stop))
            self._local.blocks["comp", pp] = block
        return block.rows[low - block.low : high - block.low]

    def _make_works(self, pp: int, low: int, high: int, start: int, stop: int) -> Ints:
        rows = self._rows[pp]
        if rows.meets:
            return self._make_met(pp, low, high, start, stop)
        actor = self._actor(pp, start, stop)
        variation = self.state.spec.gpu_jitter
        out = np.empty((high - low, stop - start), dtype=np.int64)
        if variation:
            jittered(actor.keys, factor_table(variation), low, actor.scaled[:, 0], rows.which[low:high], out)
        else:
            np.take(actor.scaled[:, 0], rows.which[low:high], axis=0, out=out)
        actor.hiccups.add_to(out, low)
        return out

    def _make_met(self, pp: int, low: int, high: int, start: int, stop: int) -> Ints:
        """The same where passes have collectives: of whole groups the columns asked for are cut out."""
        rows = self._rows[pp]
        first, last = start - start % self._inner, stop + -stop % self._inner
        actor = self._actor(pp, first, last)
        out = np.empty((high - low, last - first), dtype=np.int64)
        at_once = max(1, 2 * DRAWS_AT_ONCE // (last - first))
        begin = low
        while begin < high:
            # Works whose draws lie in the cache together; at least one.
            most = int(np.searchsorted(rows.first_draw, rows.first_draw[begin] + at_once, side="right")) - 1
            end = min(max(most, begin + 1), high)
            self._meet_some(rows, begin, end, actor, out[begin - low : end - low])
            begin = end
        return out[:, start - first : stop - first]

    def _meet_some(self, rows: WorkRows, low: int, high: int, actor: _Actor, out: Ints) -> None:
        first, last = int(rows.first_draw[low]), int(rows.first_draw[high])
        word, end = first // DRAWS_PER_WORD, -(-last // DRAWS_PER_WORD)
        # [draws, columns]
        draws = draws16(actor.keys, word, end).transpose(0, 2, 1).reshape(-1, out.shape[1])
        first_draw = rows.first_draw[low:high] - word * DRAWS_PER_WORD
        which = rows.which[low:high]
        for number in np.unique(which).tolist():
            kind, at = rows.kinds[number], np.flatnonzero(which == number)
            num = kind.num_stretches
            variation = min(self.state.spec.gpu_jitter * sqrt(num), _MAX_VARIATION)
            stretch, rest = actor.scaled[number]
            work = factor_table(variation).take(draws[first_draw[at] + np.arange(num)[:, None]], mode="clip")
            work[:-1] *= stretch
            work[-1] *= rest
            work += HALF
            work >>= FACTOR_BITS
            for place, row in enumerate((at + low).tolist()):
                actor.hiccups.add_to(work[:1, place], row)
            out[at] = self._meet(kind, work)

    def _meet(self, kind: WorkKind, work: Ints) -> Ints:
        """[works, columns] common durations of each group's members, from [stretches, works, columns]."""
        columns = self._columns
        num_works = work.shape[1]
        shape = (num_works, work.shape[2] // self._inner, columns.ep, columns.cp, columns.tp)
        ends = [_AXIS[axis] for axis in kind.axes]
        if len(ends) == 1 and all(_AXIS[meeting.axis] == ends[0] for meeting in kind.meetings):
            # One axis only: everybody starts each stretch at once, and the maxima add up.
            total = longest(work.reshape(len(work), *shape), ends[0] + 1).sum(axis=0)
            total += sum(meeting.time_ns for meeting in kind.meetings)
            return np.broadcast_to(total, shape).reshape(num_works, -1)
        total = np.zeros(shape, dtype=np.int64)
        for row, meeting in zip(work, kind.meetings, strict=False):
            total = longest(total + row.reshape(shape), _AXIS[meeting.axis]) + meeting.time_ns
        total = total + work[-1].reshape(shape)
        for axis in ends:
            total = longest(total, axis)
        return np.broadcast_to(total, shape).reshape(num_works, -1)

    def _actor(self, pp: int, start: int, stop: int) -> _Actor:
        """Keys and scaled durations of a pipeline rank's GPUs in some columns."""
        known: _Actor | None = self._local.actors.get(pp)
        if known is not None and known.start == start and known.stop == stop:
            return known
        gpu, step = self.gpus(pp, slice(start, stop))
        rows, spec = self._rows[pp], self.state.spec
        factor = self.state.work_factor(gpu, step)
        # [2, columns] a stretch and the last one; of a pass without meetings the last is all of it.
        base_ns = [
            [kind.stretch_ns, kind.last_ns] if kind.meetings else [kind.base_ns] * 2 for kind in rows.kinds
        ]
        scaled = scale(np.array(base_ns, dtype=np.int64).reshape(-1, 2, 1), factor)
        hiccups = find_hiccups(self.state, rows, gpu, step, self.step_ns)
        made = _Actor(start, stop, stream_keys(spec.seed, Stream.GPU_WORK, gpu, step), scaled, hiccups)
        self._local.actors[pp] = made
        return made
