"""What the search works on: an order's durations, dependences and memory as plain integers.

A work has a number: (kind*S + stage)*m + microbatch with kind 0, 1, 2 for F, I, W. A *sequence* is the list
of work numbers of a rank. B does not occur inside the search: it is I with its W right behind it, and never
starts a consumer earlier than the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["NO_LIMIT", "Memory", "Problem", "Sequences"]

Sequences = list[list[int]]

#: A limit that is none.
NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Memory:
    """What works do to the memory of their rank, in bytes or any other unit.

    Parameters
    ----------
    forward
        What F of each stage adds; shape [S].
    input_gradient
        What I of each stage frees; shape [S].
    limit
        The most a rank may hold; shape [p] or one number for all.

    W frees the rest: what F added and I did not free.

    Examples
    --------
    >>> Memory(forward=(34, 34), input_gradient=(2, 2), limit=100).limits(2)
    (100, 100)
    """

    forward: Sequence[int]
    input_gradient: Sequence[int]
    limit: int | Sequence[int]

    def limits(self, num_ranks: int) -> tuple[int, ...]:
        """The limit of each rank."""
        if isinstance(self.limit, int):
            return (self.limit,) * num_ranks
        return tuple(self.limit)

    def check(self, num_ranks: int, num_stages: int) -> None:
        """Raise `InvalidInputError` if the weights do not fit these stages and ranks, or make no sense."""
        sizes = (len(self.forward), len(self.input_gradient), len(self.limits(num_ranks)))
        if sizes != (num_stages, num_stages, num_ranks):
            raise InvalidInputError(
                "memory weights do not fit the pipeline",
                got=f"{sizes[0]} of F, {sizes[1]} of I, {sizes[2]} limits",
                expected=f"{num_stages}, {num_stages} and {num_ranks}",
            )
        if any(
            not 0 <= freed <= added for freed, added in zip(self.input_gradient, self.forward, strict=True)
        ):
            raise InvalidInputError(
                "I frees more memory than F added",
                got=f"{list(self.input_gradient)} of {list(self.forward)}",
                expected="between 0 and what F adds",
            )


@dataclass(frozen=True, slots=True)
class Problem:
    """A pipeline to be put in order.

    `forward_ns`, `input_ns`, `weight_ns`, `adds`, `frees` have shape [S] (`adds`: what F adds to memory,
    `frees`: what I frees of it, the rest goes with W); `limits` has shape [p].
    """

    num_ranks: int
    num_microbatches: int
    placement: tuple[tuple[int, ...], ...]
    forward_ns: tuple[int, ...]
    input_ns: tuple[int, ...]
    weight_ns: tuple[int, ...]
    hop_ns: int
    adds: tuple[int, ...]
    frees: tuple[int, ...]
    limits: tuple[int, ...]
    rank_of: tuple[int, ...] = field(init=False)
    stages_of: tuple[tuple[int, ...], ...] = field(init=False)
    #: By work number: duration, the work it waits for (-1: none, or one of its own rank), delay behind that.
    duration_ns: list[int] = field(init=False, repr=False)
    waits_for: list[int] = field(init=False, repr=False)
    delay_ns: list[int] = field(init=False, repr=False)
    #: By work number: change of memory when it starts (F), when it ends (I, W).
    grows: list[int] = field(init=False, repr=False)

    @staticmethod
    def of(
        num_ranks: int,
        num_microbatches: int,
        placement: tuple[tuple[int, ...], ...],
        times: WorkTimes,
        memory: Memory | None,
    ) -> Problem:
        """The problem of a placement, with the durations of `times`."""
        num_stages = len(placement)
        if memory is None:
            memory = Memory((1,) * num_stages, (0,) * num_stages, NO_LIMIT)
        memory.check(num_ranks, num_stages)
        return Problem(
            num_ranks,
            num_microbatches,
            placement,
            tuple(times.table(Op.F, num_stages)),
            tuple(times.table(Op.I, num_stages)),
            tuple(times.table(Op.W, num_stages)),
            times.hop_ns,
            tuple(memory.forward),
            tuple(memory.input_gradient),
            memory.limits(num_ranks),
        )

    def __post_init__(self) -> None:
        """Lay out the tables by work number, and refuse what no order can hold."""
        p, m, num_stages = self.num_ranks, self.num_microbatches, len(self.placement)
        rank_of = tuple(ranks[0] for ranks in self.placement)
        stages_of = tuple(tuple(s for s in range(num_stages) if rank_of[s] == rank) for rank in range(p))
        for rank, stages in enumerate(stages_of):
            need = sum(self.adds[stage] for stage in stages)
            if need > self.limits[rank]:
                raise InfeasibleError(
                    "memory limit is below one microbatch",
                    where=f"rank {rank}",
                    got=f"{self.limits[rank]}",
                    expected=f"at least {need}, what F of its stages adds",
                )
        work = np.repeat(np.array([self.forward_ns, self.input_ns, self.weight_ns]).reshape(-1), m)
        number = np.arange(3 * num_stages * m)
        waits, delay = np.full(3 * num_stages * m, -1), np.zeros(3 * num_stages * m, dtype=np.int64)
        apart = np.array([a != b for a, b in pairwise(rank_of)], dtype=np.int64)
        items = num_stages * m
        waits[m:items] = number[: items - m]
        delay[m:items] = np.repeat(apart, m) * self.hop_ns
        waits[items : 2 * items - m] = number[items + m : 2 * items]
        delay[items : 2 * items - m] = np.repeat(apart, m) * self.hop_ns
        adds, frees = np.array(self.adds), np.array(self.frees)
        grows = np.repeat(np.concatenate((adds, -frees, frees - adds)), m)
        for name, value in (
            ("rank_of", rank_of),
            ("stages_of", stages_of),
            ("duration_ns", work.tolist()),
            ("waits_for", waits.tolist()),
            ("delay_ns", delay.tolist()),
            ("grows", grows.tolist()),
        ):
            object.__setattr__(self, name, value)

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return len(self.placement)

    @property
    def num_works(self) -> int:
        """Works of one candidate order: 3*S*m."""
        return 3 * self.num_stages * self.num_microbatches

    def with_microbatches(self, num_microbatches: int) -> Problem:
        """The same pipeline with another number of microbatches."""
        return replace(self, num_microbatches=num_microbatches)

    def sequences(self, order: Order) -> Sequences:
        """Work numbers of an order on this placement; each B becomes its I and W."""
        kinds = {CODES[Op.F]: 0, CODES[Op.I]: 1, CODES[Op.B]: 1, CODES[Op.W]: 2}
        items = self.num_stages * self.num_microbatches
        result: Sequences = []
        for rank in range(order.num_ranks):
            works = order.works(rank)
            numbers: list[int] = []
            for code, item in zip(works.op.tolist(), order.items(works).tolist(), strict=True):
                numbers.append(kinds[code] * items + item)
                if code == CODES[Op.B]:
                    numbers.append(2 * items + item)
            result.append(numbers)
        return result

    def order(self, sequences: Sequences, fused: Sequence[set[int]] | None = None) -> Order:
        """The order of some sequences; `fused` names by rank the items whose I and W become one B."""
        m, items = self.num_microbatches, self.num_stages * self.num_microbatches
        codes = np.array([CODES[op] for op in (Op.F, Op.I, Op.W)])
        ranks: list[Works] = []
        for rank, numbers in enumerate(sequences):
            kind, item = np.divmod(np.array(numbers, dtype=np.int64), items)
            op = codes[kind]
            if fused is not None and fused[rank]:
                inside = np.isin(item, np.array(sorted(fused[rank])))
                op = np.where(inside & (kind == 1), CODES[Op.B], op)
                keep = ~(inside & (kind == 2))
                op, item = op[keep], item[keep]
            ranks.append(Works.columns(op, item // m, item % m))
        return Order(m, self.placement, ranks)
