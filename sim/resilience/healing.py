"""What it buys to replace the worst components, one after the other.

Greedy: of the latest replica's critical path the component with the largest lasting charge is healed, the
replicas that it touches are replayed with the durations that this gives them, and the latest replica is found
anew (`exactmap.sim.resilience.latest`). Nobody's jitter changes. It ends when the path is slowed by jitter
alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exactmap.sim.resilience.blame import charge_path
from exactmap.topology.state.components import Component

if TYPE_CHECKING:
    from exactmap.sim.engine.critical_path import PathFinder
    from exactmap.sim.resilience.latest import Latest
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = ["Healed", "heal_worst"]


@dataclass(frozen=True, slots=True)
class Healed:
    """A component that was healed, and the step's time from then on."""

    component: Component
    step_ns: int


def heal_worst(
    whole: WholeCluster, latest: Latest, paths: PathFinder, *, most: int, first_step: int = 0
) -> tuple[Healed, ...]:
    """Heal the worst components of one step, up to `most` of them.

    Parameters
    ----------
    whole
        Plan and cluster.
    latest
        Latest replica of the step; it is changed.
    paths
        Finds critical paths of the plan.
    most
        How many components at most.
    first_step
        Number of the first step of `latest.times`.
    """
    done: list[Healed] = []
    components: list[Component] = []
    dp, _ = latest.find()
    while len(done) < most:
        path = paths.find(latest.durations(dp))
        lasting: dict[Component, int] = defaultdict(int)
        for charge in charge_path(latest.whole, latest.times, latest.step, dp, latest.meeting.tail, path):
            lasting[charge.component] += charge.lasting_ns
        worst = max(lasting, key=lambda component: (lasting[component], component), default=None)
        if worst is None or lasting[worst] <= 0:
            break
        components.append(worst)
        healed = whole.with_state(whole.state.healed(components))
        times = healed.times(latest.times.columns.num_steps, first_step)
        latest.heal(healed, times, worst)
        dp, step_ns = latest.find()
        done.append(Healed(worst, step_ns))
    return tuple(done)
