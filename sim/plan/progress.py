"""Phase 5 of the checks: whether the plan comes to its end, whatever the durations."""

from __future__ import annotations

from collections.abc import Callable

from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.serial_game import SerialGame
from exactmap.sim.plan.strict_game import StrictGame
from exactmap.sim.plan.verdict import PlanError, StuckActor

__all__ = ["check_progress", "find_cycle"]

Fail = Callable[..., PlanError]


def find_cycle(plan: Plan, *, serial: bool = False) -> tuple[StuckActor, ...]:
    """Play a token game on a plan whose ranks agree with each other.

    Parameters
    ----------
    plan
        A plan that passes phases 2 to 4 of the checks.
    serial
        Play the serial game instead of the strict one.

    Returns
    -------
    tuple[StuckActor, ...]
        Actors that wait for each other in a circle, the lowest first; empty if every program comes to its
        END.
    """
    return SerialGame(plan).play() if serial else StrictGame(plan).play()


def check_progress(plan: Plan, fail: Fail) -> None:
    """Play the strict game and, under `serial=yes`, the serial one.

    Parameters
    ----------
    plan
        A plan that passes phases 2 to 4 of the checks.
    fail
        Makes the error: `PlanError` with the file's name bound.

    Raises
    ------
    PlanError
        With code `graph.deadlock` or `graph.serial`, and the cycle.
    """
    games = [("graph.deadlock", False, "ranks wait for each other in a circle, whatever the durations")]
    if plan.serial:
        games.append(
            ("graph.serial", True, "ranks wait for each other if each carries out its posts one by one")
        )
    for code, serial, what in games:
        cycle = find_cycle(plan, serial=serial)
        if cycle:
            hint = (
                "serial=no leaves such a plan to transports with a queue per channel"
                if serial
                else "post a send or a receive earlier, or change the order of work on one of these ranks"
            )
            raise fail(code, cycle[0].line, what, cycle=cycle, hint=hint)
