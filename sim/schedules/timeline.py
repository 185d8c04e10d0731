"""Walk an order in time, before it has messages: when each work starts and ends if links only delay.

A work starts when its rank is free and its inputs are there; an input from another rank arrives `hop_ns`
after it was made. The walk gives lowering one order of events that all ranks share; the engines price the
finished plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order

__all__ = ["Timeline", "WorkTimes", "walk"]


@dataclass(frozen=True, slots=True)
class WorkTimes:
    """Durations that an order is walked with.

    Parameters
    ----------
    work_ns
        (op, stage) -> duration for ops ``F I W B``; ``B`` defaults to I + W.
    hop_ns
        Delay of a message between two ranks.
    """

    work_ns: Mapping[tuple[str, int], int]
    hop_ns: int = 0

    @staticmethod
    def unit(num_stages: int, unit_ns: int = 1_000_000, hop_ns: int = 0) -> WorkTimes:
        """F, I and W take one unit each on every stage."""
        work_ns = {(op, stage): unit_ns for op in ("F", "I", "W") for stage in range(num_stages)}
        return WorkTimes(work_ns, hop_ns)

    def table(self, op: Op, num_stages: int) -> list[int]:
        """Durations of `op` by stage, at least 1 ns: only then do starts follow dependence.

        Raises
        ------
        InvalidInputError
            If a duration is missing.
        """
        return [max(1, self._duration_ns(op, stage)) for stage in range(num_stages)]

    def _duration_ns(self, op: str, stage: int) -> int:
        value = self.work_ns.get((op, stage))
        if value is not None:
            return value
        if op == "B":
            return self._duration_ns("I", stage) + self._duration_ns("W", stage)
        raise InvalidInputError(
            f"no duration for {op} of stage {stage}", expected="one for F, I and W of each stage"
        )


@dataclass(frozen=True, slots=True)
class Timeline:
    """Start and end of every work, and where the outputs of each item are made and used.

    Attributes
    ----------
    start_ns, end_ns
        For each rank, for each of its works.
    forward_at, backward_at
        For item stage*m + microbatch: place, in its rank's order, of its F, and of its I or B.
    """

    start_ns: tuple[list[int], ...]
    end_ns: tuple[list[int], ...]
    forward_at: list[int]
    backward_at: list[int]

    @property
    def makespan_ns(self) -> int:
        """End of the last work."""
        return max((ends[-1] for ends in self.end_ns if ends), default=0)


def walk(order: Order, times: WorkTimes) -> Timeline:
    """Start every work as early as the order and its inputs allow.

    Raises
    ------
    InfeasibleError
        If works wait for each other in a circle.
    """
    m, num_stages, placement = order.num_microbatches, order.num_stages, order.placement
    duration_ns = {op: times.table(op, num_stages) for op in (Op.F, Op.I, Op.W, Op.B)}
    last_stage, hop_ns = num_stages - 1, times.hop_ns
    made_forward, made_backward = [-1] * (num_stages * m), [-1] * (num_stages * m)
    forward_at, backward_at = [-1] * (num_stages * m), [-1] * (num_stages * m)
    start_ns: tuple[list[int], ...] = tuple([] for _ in order.ranks)
    end_ns: tuple[list[int], ...] = tuple([] for _ in order.ranks)
    clock_ns = [0] * order.num_ranks
    forward_waits: dict[int, int] = {}
    backward_waits: dict[int, int] = {}
    runnable = list(range(order.num_ranks))
    while runnable:
        rank = runnable.pop()
        works, starts, ends, now = order.ranks[rank], start_ns[rank], end_ns[rank], clock_ns[rank]
        for index in range(len(ends), len(works)):
            op, stage, microbatch = works[index]
            item = stage * m + microbatch
            if op is Op.F and stage > 0:
                neighbour, made, waits = stage - 1, made_forward[item - m], forward_waits
            elif (op is Op.I or op is Op.B) and stage < last_stage:
                neighbour, made, waits = stage + 1, made_backward[item + m], backward_waits
            else:
                neighbour, made, waits = stage, 0, forward_waits
            if made < 0:
                waits[neighbour * m + microbatch] = rank
                break
            now = max(now, made + (hop_ns if placement[neighbour] != rank else 0))
            starts.append(now)
            now += duration_ns[op][stage]
            ends.append(now)
            if op is Op.F:
                made_forward[item], forward_at[item] = now, index
                waiter = forward_waits.pop(item, -1)
            elif op is Op.W:
                continue
            else:
                made_backward[item], backward_at[item] = now, index
                waiter = backward_waits.pop(item, -1)
            if waiter >= 0:
                runnable.append(waiter)
        clock_ns[rank] = now
    for rank, works in enumerate(order.ranks):
        if len(end_ns[rank]) < len(works):
            op, stage, microbatch = works[len(end_ns[rank])]
            raise InfeasibleError(
                "the order of works waits for itself",
                where=f"rank {rank}",
                got=f"{op} {stage}.{microbatch} never starts",
                hint="this is a fault of the schedule's generator or of a hand-made order",
            )
    return Timeline(start_ns, end_ns, forward_at, backward_at)
