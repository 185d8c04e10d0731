"""All schedules by the field's names, with what each asks for and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.gpipe import gpipe
from exactmap.sim.schedules.interleaved import interleaved
from exactmap.sim.schedules.one_f_one_b import one_f_one_b
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.zb_h1 import zb_h1

__all__ = ["SCHEDULES", "Schedule", "find_schedule", "make_order"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of the registry.

    Parameters
    ----------
    name
        Its name in scenarios and on the command line.
    make
        (p, m, v) -> order.
    many_chunks
        Whether a rank may hold more than one stage.
    splits_backward
        Whether I and W are works of their own.
    about
        One line: what it does, what it costs.
    """

    name: str
    make: Callable[[int, int, int], Order]
    many_chunks: bool
    splits_backward: bool
    about: str

    def problem(self, num_ranks: int, num_microbatches: int, num_chunks: int) -> str:
        """Why this schedule cannot run so, or nothing if it can; planners prune with it."""
        for what, number in (
            ("ranks", num_ranks),
            ("microbatches", num_microbatches),
            ("chunks", num_chunks),
        ):
            if number < 1:
                return f"{self.name} needs at least 1 of {what}, got {number}"
        if num_chunks > 1 and not self.many_chunks:
            return f"{self.name} runs one chunk per rank, got {num_chunks}"
        return ""


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "gpipe",
            lambda p, m, _: gpipe(p, m),
            many_chunks=False,
            splits_backward=False,
            about="all forward, then all backward; idle (p-1)(F+B), stash m microbatches",
        ),
        Schedule(
            "1f1b",
            lambda p, m, _: one_f_one_b(p, m),
            many_chunks=False,
            splits_backward=False,
            about="forward and backward in turn; idle (p-1)(F+B), stash p-r microbatches on rank r",
        ),
        Schedule(
            "interleaved-1f1b",
            interleaved,
            many_chunks=True,
            splits_backward=False,
            about="1f1b over v chunks per rank; idle (p-1)(F+B)/v, stash p(1+(p-1)/(pv)), v x messages",
        ),
        Schedule(
            "zb-h1",
            lambda p, m, _: zb_h1(p, m),
            many_chunks=False,
            splits_backward=True,
            about="1f1b with weight gradients put off; idle (p-1)(F+I-W), stash p microbatches",
        ),
    )
}
"""Schedule by name; every one takes any number of ranks and microbatches, its warm-up cut to fit."""


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


def make_order(name: str, num_ranks: int, num_microbatches: int, num_chunks: int = 1) -> Order:
    """Order of works of a named schedule.

    Raises
    ------
    InvalidInputError
        If the name is unknown or the schedule cannot run with these numbers.

    Examples
    --------
    >>> make_order("1f1b", 4, 8).num_stages
    4
    """
    schedule = find_schedule(name)
    problem = schedule.problem(num_ranks, num_microbatches, num_chunks)
    if problem:
        raise InvalidInputError(problem, hint="take interleaved-1f1b for more than one chunk per rank")
    return schedule.make(num_ranks, num_microbatches, num_chunks)
