"""Walk an order in time, before it has messages: when each work starts and ends if links only delay.

A work starts when its rank is free and its inputs are there; an input from another rank arrives `hop_ns`
after it was made. The works of a braid start and end together. A copy to or from the host runs beside
compute, one after another on its rank; a stash is called back once it is away, and the backward pass of its
item waits for it. The walk gives lowering one order of events that all ranks share; the engines price the
finished plan.
"""

# ruff: noqa: PLR1714, SIM109 - comparisons in the innermost loop.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.schedules.order import Order

__all__ = ["Timeline", "WorkTimes", "walk"]

_F, _I, _W, _B, _RC, _OFF, _LD = (CODES[op] for op in (Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD))


@dataclass(frozen=True, slots=True)
class WorkTimes:
    """Durations that an order is walked with.

    Parameters
    ----------
    work_ns
        (op, stage) -> duration for ops ``F I W B RC``, of a whole microbatch; ``B`` defaults to I + W, ``RC``
        to F. A slice takes its even share.
    hop_ns
        Delay of a message between two ranks.
    braid_share
        What a braid takes, as a share of the sum of its works.
    copy_ns
        (op, stage) -> duration of ``OFF`` and ``LD`` of a microbatch; 0 where nothing is said.
    """

    work_ns: Mapping[tuple[str, int], int]
    hop_ns: int = 0
    braid_share: float = 1.0
    copy_ns: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @staticmethod
    def unit(num_stages: int, unit_ns: int = 1_000_000, hop_ns: int = 0) -> WorkTimes:
        """F, I and W take one unit each on every stage."""
        work_ns = {(op, stage): unit_ns for op in ("F", "I", "W") for stage in range(num_stages)}
        return WorkTimes(work_ns, hop_ns)

    def table(self, op: Op, num_stages: int, num_slices: int = 1) -> list[int]:
        """Durations of `op` of a slice by stage; those of passes are at least 1 ns: starts follow dependence.

        Raises
        ------
        InvalidInputError
            If a duration is missing.
        """
        if op in {Op.OFF, Op.LD}:
            return [round(self.copy_ns.get((op, stage), 0) / num_slices) for stage in range(num_stages)]
        return [
            max(
                1,
                self._duration_ns(op, stage)
                if num_slices == 1
                else self._duration_ns(op, stage) // num_slices,
            )
            for stage in range(num_stages)
        ]

    def _duration_ns(self, op: str, stage: int) -> int:
        value = self.work_ns.get((op, stage))
        if value is not None:
            return value
        if op == "B":
            return self._duration_ns("I", stage) + self._duration_ns("W", stage)
        if op == "RC":
            return self._duration_ns("F", stage)
        raise InvalidInputError(
            f"no duration for {op} of stage {stage}", expected="one for F, I and W of each stage"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Start and end of every work of each rank, shape [works of the rank] each, in ns.

    A copy starts when it is posted and ends when its bytes have moved.
    """

    start_ns: tuple[NDArray[np.int64], ...]
    end_ns: tuple[NDArray[np.int64], ...]

    @property
    def makespan_ns(self) -> int:
        """End of the last work."""
        return max((int(ends.max()) for ends in self.end_ns if len(ends)), default=0)


def walk(order: Order, times: WorkTimes) -> Timeline:
    """Start every work as early as the order and its inputs allow.

    Raises
    ------
    InfeasibleError
        If works wait for each other in a circle.
    """
    return _Walk(order, times).run()


class _Walk:
    """State of a walk: what was made when, how far each rank came, who waits for what."""

    def __init__(self, order: Order, times: WorkTimes) -> None:
        self.order, self.times = order, times
        num_items = order.num_items
        self.item_step = order.num_microbatches * order.num_slices
        # Index 0: outputs of F, 1: of I or B. -1 stands for not made.
        self.made_ns = ([-1] * num_items, [-1] * num_items)
        self.sent_ns: dict[int, int] = {}  # end of an item's OFF
        self.loaded_ns: dict[int, int] = {}
        self.waiting: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.start_ns: list[list[int]] = [[] for _ in order.ranks]
        self.end_ns: list[list[int]] = [[] for _ in order.ranks]
        self.rank_of = order.rank_of_item.tolist()

    def run(self) -> Timeline:
        order = self.order
        columns = [
            (works.op.tolist(), order.items(works).tolist(), works.stage.tolist(), works.braid.tolist())
            for works in map(order.works, range(order.num_ranks))
        ]
        durations = {
            code: self.times.table(KINDS[code], order.num_stages, order.num_slices)
            for code in (_F, _I, _W, _B, _RC, _OFF, _LD)
            if any((order.works(rank).op == code).any() for rank in range(order.num_ranks))
        }
        clock_ns, copied_ns = [0] * order.num_ranks, [0] * order.num_ranks
        runnable = list(range(order.num_ranks))
        while runnable:
            rank = runnable.pop()
            self._advance(rank, columns[rank], durations, clock_ns, copied_ns, runnable)
        for rank, (codes, items, _, _) in enumerate(columns):
            at = len(self.end_ns[rank])
            if at < len(codes):
                raise InfeasibleError(
                    "the order of works waits for itself",
                    where=f"rank {rank}",
                    got=f"{KINDS[codes[at]]} {order.name(items[at])} never starts",
                    hint="this is a fault of the schedule's generator or of a hand-made order",
                )
        return Timeline(
            tuple(np.array(starts, dtype=np.int64) for starts in self.start_ns),
            tuple(np.array(ends, dtype=np.int64) for ends in self.end_ns),
        )

    def _advance(
        self,
        rank: int,
        columns: tuple[list[int], list[int], list[int], list[int]],
        durations: dict[int, list[int]],
        clock_ns: list[int],
        copied_ns: list[int],
        runnable: list[int],
    ) -> None:
        """Do one rank's works up to the first whose input is not made."""
        codes, items, stages, braids = columns
        starts, ends, now = self.start_ns[rank], self.end_ns[rank], clock_ns[rank]
        made_ns, waiting, rank_of = self.made_ns, self.waiting, self.rank_of
        step, last_stage, hop_ns = self.item_step, self.order.num_stages - 1, self.times.hop_ns
        at, num = len(ends), len(codes)
        while at < num:
            stop = at + 1
            if braids[at] >= 0:
                while stop < num and braids[stop] == braids[at]:
                    stop += 1
            begin = now
            for row in range(at, stop):
                code, item, stage = codes[row], items[row], stages[row]
                if code == _F and stage > 0:
                    kind, source = 0, item - step
                elif (code == _I or code == _B) and stage < last_stage:
                    kind, source = 1, item + step
                else:
                    continue
                made = made_ns[kind][source]
                if made < 0:
                    waiting[kind][source] = rank
                    clock_ns[rank] = now
                    return
                if rank_of[source] != rank:
                    made += hop_ns
                begin = max(begin, made)
            code, item = codes[at], items[at]
            if code == _OFF or code == _LD:
                if code == _LD:  # a rank waits until a stash is away before it calls it back
                    begin = now = max(begin, self.sent_ns[item])
                done = copied_ns[rank] = max(begin, copied_ns[rank]) + durations[code][stages[at]]
                (self.loaded_ns if code == _LD else self.sent_ns)[item] = done
                starts.append(begin)
                ends.append(done)
                at = stop
                continue
            if self.loaded_ns:
                for row in range(at, stop):
                    if codes[row] == _I or codes[row] == _B:
                        begin = max(begin, self.loaded_ns.get(items[row], 0))
            total = 0
            for row in range(at, stop):
                total += durations[codes[row]][stages[row]]
            if stop > at + 1:
                total = max(1, round(total * self.times.braid_share))
            now = begin + total
            for row in range(at, stop):
                starts.append(begin)
                ends.append(now)
                code, item = codes[row], items[row]
                if code == _F:
                    kind = 0
                elif code == _I or code == _B:
                    kind = 1
                else:
                    continue
                made_ns[kind][item] = now
                waiter = waiting[kind].pop(item, -1)
                if waiter >= 0:
                    runnable.append(waiter)
            at = stop
        clock_ns[rank] = now
