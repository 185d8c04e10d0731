"""Fast check of buckets and norms: the rules of `exactmap.sim.plan.bucket_state` on numbers alone.

Instructions of buckets are walked one by one, passes are held against the spans in which their buckets are
open, and gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from exactmap.sim.plan.accept_items import Life, Passes
from exactmap.sim.plan.accept_queues import Queues
from exactmap.sim.plan.accept_rows import NEVER, Flags, Ints, Rows, need
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.plan import Bucket, Plan
from exactmap.sim.plan.table import POOL_LETTERS

__all__ = ["check_buckets_and_norms", "sharded_zeros"]

_OPS: Final = (Op.ZERO, Op.OPT, Op.PV, Op.UNDO, Op.AG, Op.RS, Op.AR, Op.FREE, Op.NORM, Op.CHK, Op.WC)
_ZERO, _OPT, _PV, _UNDO, _AG, _RS, _AR, _FREE, _NORM, _CHK, _WC = (CODES[op] for op in _OPS)
_FREE_CLOCK: Final = {_PV, _UNDO, _CHK}
_NAMES_BUCKET: Final = np.isin(np.arange(len(KINDS)), [_ZERO, _OPT, _PV, _UNDO, _AG, _RS, _AR, _FREE])

Span = tuple[int, int]


class _State:
    """One bucket of one program; spans are (position that opens, position that closes)."""

    __slots__ = (
        "closers",
        "gathered",
        "gathering",
        "judged",
        "open",
        "opened",
        "pending",
        "posted",
        "shard",
        "spans_gathered",
        "spans_open",
        "stepped",
        "undone",
        "waited",
        "zero_row",
    )

    def __init__(self, bucket: Bucket, group_numbers: dict[str, int]) -> None:
        self.closers = [group_numbers[name] for name in bucket.reduce]
        self.shard = group_numbers[bucket.shard] if bucket.shard else -1
        self.opened = self.open = self.stepped = self.judged = self.undone = self.gathering = False
        self.gathered = -1  # position since when
        self.posted = self.waited = 0
        self.zero_row = -1
        self.pending: list[int] = []  # rows of posts that are not waited
        self.spans_open: list[Span] = []
        self.spans_gathered: list[Span] = []

    @property
    def closed(self) -> bool:
        return self.opened and self.waited == len(self.closers)


class _Walk:
    """The bucket instructions of one program."""

    def __init__(self, plan: Plan, states: dict[int, _State]) -> None:
        self.states = states
        self.clips = plan.train.clip > 0
        self.barrier = plan.clock == "barrier"
        self.num_closed = 0
        self.norms = self.norms_waited = self.checks = self.checks_waited = 0
        self.first_norm = int(NEVER)
        self.reductions: list[Span] = []  # rows of ZEROs with q, and where that ends
        self.gathers: list[Span] = []  # row of each AG, and where its FREE stands
        self.gather_row: dict[int, int] = {}

    def step(self, op: int, number: int, group: int, row: int, at: int) -> None:
        """Take an instruction other than WC; `number` is its bucket's."""
        need(not (self.barrier and op in _FREE_CLOCK))
        if op == _NORM:
            need(self.num_closed == len(self.states))
            self.norms += 1
            self.first_norm = min(self.first_norm, at)
            return
        if op == _CHK:
            self.checks += 1
            return
        state = self.states[number]
        if op in {_RS, _AR}:
            need((op == _RS) == (state.shard >= 0) and state.opened)
            need(state.posted < len(state.closers) and state.closers[state.posted] == group)
            state.posted += 1
            state.pending.append(row)
            self._close(state, at)
        elif op == _AG:
            need(state.shard == group and state.gathered < 0 and not state.gathering)
            state.gathering = True
            state.pending.append(row)
            self.gather_row[number] = row
        elif op == _FREE:
            need(state.gathered >= 0)
            state.spans_gathered.append((state.gathered, at))
            state.gathered = -1
            self.gathers.append((self.gather_row[number], at))
        elif op == _ZERO:
            self._zero(state, row, at)
        elif op == _OPT:
            need(state.closed and not state.stepped)
            need(not self.clips or 0 < self.norms == self.norms_waited)
            state.stepped = True
            self._close(state, at)
        else:
            self._judge(op, state)

    def _zero(self, state: _State, row: int, at: int) -> None:
        need(not state.open and not state.stepped)
        need(not state.opened or (state.shard >= 0 and state.closed))
        self.num_closed -= state.closed
        state.opened = state.open = True
        state.posted = state.waited = 0
        state.zero_row = row if state.shard >= 0 else -1
        state.spans_open.append((at, int(NEVER)))
        self.num_closed += state.closed

    def _judge(self, op: int, state: _State) -> None:
        need(0 < self.checks == self.checks_waited)
        if op == _PV:
            need(not state.judged)
            state.judged = True
        else:
            need(state.judged and not state.undone and not state.opened)
            state.undone = True

    @staticmethod
    def _close(state: _State, at: int) -> None:
        if state.open:
            state.open = False
            state.spans_open[-1] = (state.spans_open[-1][0], at)

    def wait(self, op: int, number: int, post: int, at: int) -> None:
        """Take the WC of the post of kind `op` in row `post`."""
        if op == _NORM:
            self.norms_waited += 1
        elif op == _CHK:
            self.checks_waited += 1
        else:
            state = self.states[number]
            need(state.pending.pop(0) == post)
            if op == _AG:
                state.gathering, state.gathered = False, at
                return
            state.waited += 1
            if state.closed:
                self.num_closed += 1
                if state.zero_row >= 0:
                    self.reductions.append((state.zero_row, at))
                    state.zero_row = -1

    def end(self) -> None:
        """What must hold at END."""
        for state in self.states.values():
            need(state.stepped and state.gathered < 0 and not state.gathering and state.zero_row < 0)


def sharded_zeros(plan: Plan, rows: Rows) -> Flags:
    """For each ZERO whether its bucket is sharded; also finds instructions whose bucket does not exist."""
    most = max(bucket.index for bucket in plan.buckets) + 1
    shard = np.full((len(plan.stages), most), -1, dtype=np.int8)
    for bucket in plan.buckets:
        shard[bucket.stage, bucket.index] = bool(bucket.shard)
    found = np.flatnonzero(_NAMES_BUCKET[rows.op])
    need((rows.bucket[found] < most).all())
    need((shard[rows.stage[found], rows.bucket[found]] >= 0).all())
    zeros = rows.of(Op.ZERO)
    sharded: Flags = shard[rows.stage[zeros], rows.bucket[zeros]] == 1
    return sharded


def check_buckets_and_norms(plan: Plan, rows: Rows, queues: Queues, passes: Passes) -> list[Life]:
    """Check buckets, norms and their waits; returns the slots of pools p and q.

    Raises
    ------
    Unproven
        If a rule does not hold.
    """
    numbers = {(bucket.stage, bucket.index): number for number, bucket in enumerate(plan.buckets)}
    group_numbers = {group.name: number for number, group in enumerate(plan.groups)}
    walks = [
        _Walk(plan, {numbers[key]: _State(bucket, group_numbers) for key, bucket in view.buckets.items()})
        for view in rows.views
    ]
    post_of = np.full(len(rows.op), -1, dtype=np.int64)
    post_of[queues.waits] = queues.posts
    found = np.sort(np.concatenate([rows.of(op) for op in _OPS]))
    posts = post_of[found]
    group = np.where(rows.queue[found] >= 0, rows.queue_group[rows.queue[found]], -1)
    columns = (
        rows.program[found],
        rows.op[found],
        rows.op[posts],
        rows.stage[found],
        rows.bucket[found],
        group,
        found,
        posts,
        rows.at[found],
    )
    for program, op, post_op, stage, bucket, over, row, post, at in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        number = numbers[stage, bucket] if bucket >= 0 else -1
        if op == _WC:
            walks[program].wait(post_op, number, post, at)
        else:
            walks[program].step(op, number, over, row, at)
    for walk in walks:
        walk.end()
    _check_passes(rows, walks, numbers, passes)
    return [
        Life(POOL_LETTERS.index(letter), *_columns(spans))
        for letter, spans in (
            ("q", [span for walk in walks for span in walk.reductions]),
            ("p", [span for walk in walks for span in walk.gathers]),
        )
        if spans
    ]


def _columns(spans: Sequence[Span]) -> tuple[Ints, Ints]:
    pairs = np.array(spans, dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]


def _check_passes(
    rows: Rows, walks: Sequence[_Walk], numbers: dict[tuple[int, int], int], passes: Passes
) -> None:
    """Gradients are added while their buckets are open, and before the norm; parameters are there."""
    first = passes.weight_gradient.min(axis=1).tolist()
    last = np.where(passes.weight_gradient < NEVER, passes.weight_gradient, -1).max(axis=1).tolist()
    local = 0
    for view, walk in zip(rows.views, walks, strict=True):
        for stage in view.index.stages[view.rank]:
            need(last[local] < walk.first_norm)
            for key in view.used_buckets[stage]:
                state = walk.states[numbers[key]]
                spans = state.spans_open
                if len(spans) == 1:
                    need(last[local] < 0 or spans[0][0] < first[local] <= last[local] < spans[0][1])
                else:
                    _within(spans, passes.weight_gradient[local])
                if state.shard >= 0:
                    for positions in (passes.forward, passes.again, passes.input_gradient):
                        _within(state.spans_gathered, positions[local])
            local += 1


def _within(spans: Sequence[Span], positions: Ints) -> None:
    """Each position lies in a span."""
    positions = positions[positions < NEVER]
    if not len(positions):
        return
    need(len(spans) > 0)
    starts, ends = _columns(spans)
    place = np.searchsorted(starts, positions) - 1  # spans ascend; none starts or ends at a pass
    need((place >= 0).all() and (positions < ends[place]).all())
