"""What a schedule of the registry says about itself, and when it refuses a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["Request", "Schedule"]


class Request(NamedTuple):
    """What a schedule is asked for: p, m, v, slices, group of microbatches, durations, stash to stay in.

    A `group_size` of 0 leaves the choice to the schedule, as do no `times`; a `stash_limit` of 0 is none.
    """

    num_ranks: int
    num_microbatches: int
    num_chunks: int = 1
    num_slices: int = 1
    group_size: int = 0
    times: WorkTimes | None = None
    stash_limit: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of the registry.

    Parameters
    ----------
    name
        Its name in scenarios and on the command line.
    make
        Request -> order.
    about
        One line: what it does, what it costs.
    source
        Where it is from.
    constraints
        What must hold beside p, m, v >= 1, in words; empty: nothing.
    many_chunks
        Whether a rank may hold more than one stage.
    fixed_chunks
        Chunks per rank that it always has, 0: not fixed.
    splits_backward
        Whether I and W are works of their own.
    two_ranks
        Whether each stage lies on two ranks, so that parameters are held twice.
    slices
        Whether sequences may be cut into slices.
    braids
        Whether passes run as braids.
    steady
        Whether it gains only where the optimizer does not synchronise the ranks.
    groups
        Whether it takes a size of a group of microbatches.
    limits
        Whether it keeps to a stash limit.
    recomputes, copies
        Whether forward passes are done again, and stashes sent to the host.
    obstacle
        Request -> why it cannot run so, beyond what the flags say.
    """

    name: str
    make: Callable[[Request], Order]
    about: str
    source: str
    constraints: str = ""
    many_chunks: bool = False
    fixed_chunks: int = 0
    splits_backward: bool = False
    two_ranks: bool = False
    slices: bool = False
    braids: bool = False
    steady: bool = False
    groups: bool = False
    limits: bool = False
    recomputes: bool = False
    copies: bool = False
    obstacle: Callable[[Request], str] | None = None

    def problem(
        self,
        num_ranks: int,
        num_microbatches: int,
        num_chunks: int = 1,
        *,
        num_slices: int = 1,
        group_size: int = 0,
        stash_limit: int = 0,
    ) -> str:
        """Why this schedule cannot run so, or nothing if it can; planners prune with it."""
        return self.problem_of(
            Request(num_ranks, num_microbatches, num_chunks, num_slices, group_size, None, stash_limit)
        )

    def problem_of(self, request: Request) -> str:
        """As `problem`, of a whole request."""
        for what, number, least in (
            ("ranks", request.num_ranks, 1),
            ("microbatches", request.num_microbatches, 1),
            ("chunks", request.num_chunks, 1),
            ("slices", request.num_slices, 1),
            ("microbatches in a group", request.group_size, 0),
            ("stashed microbatches", request.stash_limit, 0),
        ):
            if number < least:
                return f"{self.name} needs at least {least} of {what}, got {number}"
        if self.fixed_chunks and request.num_chunks != self.fixed_chunks:
            return f"{self.name} runs {self.fixed_chunks} chunks per rank, got {request.num_chunks}"
        if request.num_chunks > 1 and not self.many_chunks:
            return f"{self.name} runs one chunk per rank, got {request.num_chunks}"
        if request.num_slices > 1 and not self.slices:
            return f"{self.name} does not cut sequences, got {request.num_slices} slices"
        if request.group_size and not self.groups:
            return f"{self.name} has no groups of microbatches, got a group of {request.group_size}"
        if request.stash_limit and not self.limits:
            return f"{self.name} cannot keep to a stash limit, got {request.stash_limit}"
        least = min(request.num_ranks, request.num_microbatches)
        if request.group_size and not least <= request.group_size <= request.num_microbatches:
            return (
                f"{self.name} needs groups of {least} to {request.num_microbatches} microbatches, got "
                f"{request.group_size}"
            )
        return self.obstacle(request) if self.obstacle else ""
