"""A deadlock: the error of an engine in which ranks remain that only wait for each other.

Who waits for whom at that moment depends on mover and depths; the strict order (plan format, section 7, phase
5) does not, so the cycle that is named is the one that the plan's checks name, whichever engine ran into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.progress import find_cycle

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.plan.verdict import StuckActor

__all__ = ["DeadlockError", "deadlock_of"]


class DeadlockError(InvalidInputError):
    """Ranks wait for each other (exit code 3); `cycle` lists them as the plan's checks do, lowest first."""

    def __init__(self, cycle: tuple[StuckActor, ...]) -> None:
        lines = "".join(f"\n  {actor}" for actor in cycle)
        super().__init__(
            f"the plan deadlocks: ranks wait for each other{lines}",
            hint="check the plan: exactmap check PLAN",
        )
        self.cycle = cycle


def deadlock_of(plan: Plan) -> DeadlockError:
    """The error for a plan in which an engine got stuck.

    The cycle is empty only for a plan that its checks refuse before they play the strict game.
    """
    return DeadlockError(find_cycle(plan))
