"""All schedules by the field's names, with what each asks for and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.gpipe import gpipe, terapipe
from exactmap.sim.schedules.interleaved import braided_interleaved, breadth_first, interleaved, interleaved_zb
from exactmap.sim.schedules.one_f_one_b import eager_one_f_one_b, one_f_one_b, seq_one_f_one_b
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.schedules.zb_h import zb_h1, zb_h2

__all__ = ["SCHEDULES", "Request", "Schedule", "find_schedule", "make_order"]


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
        return self._problem(
            Request(num_ranks, num_microbatches, num_chunks, num_slices, group_size, None, stash_limit)
        )

    def _problem(self, request: Request) -> str:
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


_ALL = (
    Schedule(
        "gpipe",
        lambda q: gpipe(q.num_ranks, q.num_microbatches),
        about="all forward, then all backward; idle (p-1)(F+B), stash m microbatches",
        source="arXiv:1811.06965",
    ),
    Schedule(
        "1f1b",
        lambda q: one_f_one_b(q.num_ranks, q.num_microbatches),
        about="forward and backward in turn; idle (p-1)(F+B), stash p-r microbatches on rank r",
        source="arXiv:2007.01045",
    ),
    Schedule(
        "eager-1f1b",
        lambda q: eager_one_f_one_b(q.num_ranks, q.num_microbatches),
        about="1f1b with twice the warm-up: hides hops; idle (p-1)(F+B), stash 2(p-1-r)+1 on rank r",
        source="arXiv:2211.05322",
    ),
    Schedule(
        "interleaved-1f1b",
        lambda q: interleaved(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="1f1b over v chunks per rank; idle (p-1)(F+B)/v, stash p(1+(p-1)/(pv)), v x messages",
        source="arXiv:2104.04473",
        many_chunks=True,
        groups=True,
    ),
    Schedule(
        "breadth-first",
        lambda q: breadth_first(q.num_ranks, q.num_microbatches, q.num_chunks),
        about="chunk by chunk all forward, then all backward; idle (p-1)(F+B)/v, stash m, v x messages",
        source="arXiv:2211.05953",
        many_chunks=True,
    ),
    Schedule(
        "zb-h1",
        lambda q: zb_h1(q.num_ranks, q.num_microbatches),
        about="1f1b with weight gradients put off; idle (p-1)(F+I-W), stash p microbatches",
        source="arXiv:2401.10241",
        splits_backward=True,
    ),
    Schedule(
        "zb-h2",
        lambda q: zb_h2(q.num_ranks, q.num_microbatches),
        about="zb-h1 with twice the warm-up; idle (p-1)(F+I-2W) without a barrier, stash 2p-1",
        source="arXiv:2401.10241",
        splits_backward=True,
        steady=True,
    ),
    Schedule(
        "interleaved-zb",
        lambda q: interleaved_zb(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="interleaved with weight gradients put off; idle (p-1)(F+I-W)/v, stash p, v x messages",
        source="torch.distributed.pipelining 2.13, after arXiv:2401.10241",
        many_chunks=True,
        splits_backward=True,
        groups=True,
    ),
    Schedule(
        "braided-interleaved",
        lambda q: braided_interleaved(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="interleaved with one more warm-up pass: forward and backward braided; stash one chunk more",
        source="arXiv:2507.20534",
        many_chunks=True,
        braids=True,
        groups=True,
    ),
    Schedule(
        "seq-1f1b",
        lambda q: seq_one_f_one_b(q.num_ranks, q.num_microbatches, q.num_slices),
        about="1f1b over n slices of each sequence; idle about (p-1)(F+B)/n, stash (p-1+n)/n",
        source="arXiv:2406.03488",
        constraints="causal attention",
        slices=True,
    ),
    Schedule(
        "terapipe",
        lambda q: terapipe(q.num_ranks, q.num_microbatches, q.num_slices),
        about="gpipe over n slices of each sequence; idle (p-1)(F+B)/n, stash m",
        source="arXiv:2102.07988",
        constraints="causal attention",
        slices=True,
    ),
)

SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in _ALL}
"""Schedule by name; where its constraints do not say otherwise it takes any p, m, its warm-up cut to fit."""


def find_schedule(name: str) -> Schedule:
    """The schedule called `name`.

    Raises
    ------
    InvalidInputError
        If there is none; the hint names the nearest.
    """
    schedule = SCHEDULES.get(name)
    if schedule is None:
        near = get_close_matches(name, SCHEDULES, 1)
        raise InvalidInputError(
            "unknown schedule",
            got=repr(name),
            expected=", ".join(SCHEDULES),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    return schedule


def make_order(
    name: str,
    num_ranks: int,
    num_microbatches: int,
    num_chunks: int = 1,
    *,
    num_slices: int = 1,
    group_size: int = 0,
    times: WorkTimes | None = None,
    stash_limit: int = 0,
) -> Order:
    """Order of works of a named schedule.

    Parameters
    ----------
    name
        Name in `SCHEDULES`.
    num_ranks, num_microbatches, num_chunks, num_slices
        p, m, v and the slices of each sequence.
    group_size
        Microbatches that go through the chunks together, 0: as many as the schedule likes best.
    times
        Durations, for schedules that look at them.
    stash_limit
        Microbatches of a rank's layers that it may stash, 0: no limit.

    Raises
    ------
    InvalidInputError
        If the name is unknown or the schedule cannot run with these numbers.
    InfeasibleError
        If it cannot keep to the stash limit.

    Examples
    --------
    >>> make_order("1f1b", 4, 8).num_stages
    4
    """
    schedule = find_schedule(name)
    request = Request(num_ranks, num_microbatches, num_chunks, num_slices, group_size, times, stash_limit)
    problem = schedule.problem(
        num_ranks,
        num_microbatches,
        num_chunks,
        num_slices=num_slices,
        group_size=group_size,
        stash_limit=stash_limit,
    )
    if problem:
        raise InvalidInputError(problem, hint=_hint(schedule))
    return schedule.make(request)


def _hint(schedule: Schedule) -> str:
    if schedule.constraints:
        return f"{schedule.name} asks for {schedule.constraints}"
    return "interleaved-1f1b takes any number of chunks per rank"
