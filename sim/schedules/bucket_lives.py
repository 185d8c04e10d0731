"""What a rank does with its buckets: gather, open, close, norm, step; slots of sharded ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.draft import Draft
from exactmap.sim.schedules.gradients import Gradients
from exactmap.sim.schedules.openings import Openings
from exactmap.sim.schedules.posts import Closers
from exactmap.sim.schedules.slots import colour
from exactmap.sim.schedules.units import NOTE, OPEN, START, WAIT_RECEIVE, Ints, Units, grouped, key

__all__ = ["BucketLives"]

_END = 1
"""Gaps behind that after the last unit in which a program closes."""


class BucketLives:
    """Adds to each rank's program what concerns its buckets.

    Parameters
    ----------
    units, closers, gradients, openings
        The walked order, the posts that close buckets, the buckets, when they open and close.
    group_queue
        Group -> its number among the programs' queues.
    """

    def __init__(
        self,
        units: Units,
        closers: Closers,
        gradients: Gradients,
        openings: Openings,
        group_queue: Mapping[str, int],
    ) -> None:
        self.units, self.closers, self.gradients, self.openings = units, closers, gradients, openings
        self.group_queue = group_queue
        placement = units.order.placement
        self.held: list[list[int]] = [[] for _ in range(units.order.num_ranks)]
        for bucket, declared in enumerate(gradients.buckets):
            for rank in placement[declared.stage]:
                self.held[rank].append(bucket)
        self._by_rank = grouped(closers.rank)
        self._ends = np.searchsorted(closers.rank[self._by_rank], np.arange(units.order.num_ranks + 1))

    def add(self, draft: Draft, rank: int) -> dict[str, int]:
        """Add a rank's instructions to its program; returns the slots of pools p and q."""
        end_gap = self.units.num_units(rank) + _END
        closed = self._close(draft, rank, end_gap)
        num_slots = {"p": self._gather(draft, rank), "q": self._open(draft, rank, closed)}
        add, group_queue = draft.add, self.group_queue
        number = 0
        for group in self.gradients.norms:
            keys = key(np.full(2, end_gap), OPEN, np.arange(number, number + 2))
            add(keys, [CODES[Op.NORM], CODES[Op.WC]], {"queue": group_queue[group]})
            number += 2
        held = self.held[rank]
        self._add(draft, held, key(np.full(len(held), end_gap), OPEN + 1), CODES[Op.OPT])
        add(np.array([key(end_gap, OPEN + 2)]), CODES[Op.END])
        return num_slots

    def _add(
        self,
        draft: Draft,
        buckets: list[int],
        keys: Ints,
        op: int,
        queue: list[int] | int = -1,
        slots: Mapping[str, Ints] = MappingProxyType({}),
    ) -> None:
        declared = [self.gradients.buckets[bucket] for bucket in buckets]
        stage, index = [one.stage for one in declared], [one.index for one in declared]
        draft.add(keys, op, {"stage": stage, "bucket": index, "queue": queue}, slots)

    def _close(self, draft: Draft, rank: int, end_gap: int) -> dict[int, int]:
        """Closing posts, and their waits at the end; returns where each bucket is closed."""
        here = self._by_rank[self._ends[rank] : self._ends[rank + 1]]
        buckets, depths = self.closers.bucket[here].tolist(), self.closers.depth[here].tolist()
        declared = [self.gradients.buckets[bucket] for bucket in buckets]
        queue = [
            self.group_queue[bucket.reduce[depth]] for bucket, depth in zip(declared, depths, strict=True)
        ]
        sharded = any(bucket.shard for bucket in declared)
        self._add(draft, buckets, self.closers.key[here], CODES[Op.RS if sharded else Op.AR], queue=queue)
        wait_keys = key(np.full(len(here), end_gap), NOTE, np.arange(1, len(here) + 1))
        self._add(draft, buckets, wait_keys, CODES[Op.WC], queue=queue)
        return dict(zip(buckets, wait_keys.tolist(), strict=True))

    def _gather(self, draft: Draft, rank: int) -> int:
        """Gather the sharded buckets at the start, free each behind its last use."""
        first, last = self.openings.first_use, self.openings.last_use
        buckets = [
            bucket
            for bucket in self.held[rank]
            if self.gradients.buckets[bucket].shard and first[bucket, rank] >= 0
        ]
        buckets.sort(key=lambda bucket: first[bucket, rank])
        if not buckets:
            return 0
        numbers = np.arange(1, len(buckets) + 1)
        keys = key(np.full(len(buckets), START), NOTE, numbers)
        wait_keys = key(np.array([first[bucket, rank] for bucket in buckets]), WAIT_RECEIVE, numbers)
        free_keys = key(np.array([last[bucket, rank] + 1 for bucket in buckets]), NOTE, numbers)
        colouring = colour(keys, free_keys)
        queue = [self.group_queue[self.gradients.buckets[bucket].shard] for bucket in buckets]
        self._add(draft, buckets, keys, CODES[Op.AG], queue, {"p": colouring.slot})
        self._add(draft, buckets, wait_keys, CODES[Op.WC], queue=queue)
        self._add(draft, buckets, free_keys, CODES[Op.FREE])
        return colouring.num_slots

    def _open(self, draft: Draft, rank: int, closed: dict[int, int]) -> int:
        """Make gradients zero, behind the check of the step before where there is one."""
        held = self.held[rank]
        ones = np.ones(len(held), dtype=np.int64)
        if self.openings.check_gap:
            gap, queue = self.openings.check_gap[rank], self.group_queue[self.gradients.check]
            draft.add(np.array([key(START, NOTE)]), CODES[Op.CHK], {"queue": queue})
            draft.add(np.array([key(gap, OPEN)]), CODES[Op.WC], {"queue": queue})
            self._add(draft, held, key(ones * gap, OPEN, 1), CODES[Op.PV])
            self._add(draft, held, key(ones * gap, OPEN, 2), CODES[Op.UNDO])
        gaps = np.array([self.openings.open_gap[bucket, rank] for bucket in held])
        keys = key(gaps, OPEN, 3)
        if not any(self.gradients.buckets[bucket].shard for bucket in held):
            self._add(draft, held, keys, CODES[Op.ZERO])
            return 0
        colouring = colour(keys, np.array([closed[bucket] for bucket in held]))
        self._add(draft, held, keys, CODES[Op.ZERO], slots={"q": colouring.slot})
        return colouring.num_slots
