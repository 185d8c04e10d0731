"""An order: what each pipeline rank computes, one work after another, before any time or message is known.

Notation of all schedules here: p ranks, m microbatches, v chunks per rank, S = p*v stages, r a rank. ``F`` is
the forward pass, ``I`` the gradient of the input, ``W`` that of the weights, ``B`` = I and W in one. Every
stage meets its microbatches in ascending order in its backward pass, so that gradients are summed in the same
order by all schedules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import Op

__all__ = ["Order", "Work", "loop_placement"]


class Work(NamedTuple):
    """One pass (`Op.F`, `Op.B`, `Op.I` or `Op.W`) of one microbatch through one stage."""

    op: Op
    stage: int
    microbatch: int


@dataclass(frozen=True, slots=True)
class Order:
    """Works of each pipeline rank in the order in which it does them.

    Parameters
    ----------
    num_microbatches
        Microbatches of one step, m.
    placement
        The rank of each stage.
    ranks
        For each rank its works.

    Raises
    ------
    InvalidInputError
        If a work stands on a rank that does not hold its stage, stands twice or is missing, or if a rank does
        a backward pass before its forward pass.

    Examples
    --------
    >>> order = Order(1, (0, 1), ((Work(Op.F, 0, 0), Work(Op.B, 0, 0)), (Work(Op.F, 1, 0), Work(Op.B, 1, 0))))
    >>> order.num_ranks, order.num_stages
    (2, 2)
    """

    num_microbatches: int
    placement: tuple[int, ...]
    ranks: tuple[tuple[Work, ...], ...]

    @property
    def num_ranks(self) -> int:
        """Number of pipeline ranks, p."""
        return len(self.ranks)

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return len(self.placement)

    def __post_init__(self) -> None:
        """Check that every item is computed once, on the right rank and in a possible order on that rank."""
        m = self.num_microbatches
        done: dict[Op, bytearray] = {op: bytearray(self.num_stages * m) for op in (Op.F, Op.I, Op.W)}
        forward, input_grad, weight_grad = done[Op.F], done[Op.I], done[Op.W]
        for rank, works in enumerate(self.ranks):
            for op, stage, microbatch in works:
                item = stage * m + microbatch
                if (
                    not (0 <= microbatch < m and 0 <= stage < self.num_stages)
                    or self.placement[stage] != rank
                ):
                    raise _wrong(rank, op, stage, microbatch, "does not belong on this rank")
                if op is Op.F:
                    early, again = False, forward[item]
                    forward[item] = 1
                elif op is Op.I or op is Op.B:
                    early, again = not forward[item], input_grad[item]
                    input_grad[item] = 1
                elif op is Op.W:
                    early, again = not input_grad[item], weight_grad[item]
                else:
                    raise _wrong(rank, op, stage, microbatch, "is no F, I, W or B")
                if op is Op.W or op is Op.B:
                    again = again or weight_grad[item]
                    weight_grad[item] = 1
                if early or again:
                    raise _wrong(rank, op, stage, microbatch, "comes twice" if again else "comes too early")
        for op, marks in done.items():
            missing = marks.find(0)
            if missing >= 0:
                stage, microbatch = divmod(missing, m)
                raise _wrong(self.placement[stage], op, stage, microbatch, "is missing")


def _wrong(rank: int, op: Op, stage: int, microbatch: int, what: str) -> InvalidInputError:
    return InvalidInputError(f"this is no order of a step: on rank {rank}, {op} {stage}.{microbatch} {what}")


def loop_placement(num_ranks: int, num_chunks: int) -> tuple[int, ...]:
    """Rank of each stage when the stages go round the ranks: stage s lies on rank s mod p.

    Examples
    --------
    >>> loop_placement(3, 2)
    (0, 1, 2, 0, 1, 2)
    """
    return tuple(range(num_ranks)) * num_chunks
