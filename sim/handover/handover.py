"""What every target takes and gives: a plan with its order and map in, files and a verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from exactmap.sim.handover.facts import map_facts, plan_facts
from exactmap.sim.handover.step_order import StepOrder, read_step_order
from exactmap.sim.handover.verdict import Ledger, Verdict
from exactmap.sim.plan.plan import Plan
from exactmap.topology.exact_map.exact_map import ExactMap

__all__ = ["Handover", "Job", "LaidRanks"]


@dataclass(frozen=True, slots=True, eq=False)
class LaidRanks:
    """A plan's ranks on the GPUs of a cluster.

    Parameters
    ----------
    exact_map
        The map.
    cluster
        Name of the cluster.
    hosts
        Name of each of its hosts, in order.
    """

    exact_map: ExactMap
    cluster: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A plan to hand over.

    Parameters
    ----------
    plan
        The plan, accepted.
    name
        Its file's name, for comments.
    sha256
        Hash of that file.
    laid
        Where its ranks sit; None where no cluster was named.
    """

    plan: Plan
    name: str
    sha256: str
    laid: LaidRanks | None = None
    order: StepOrder = field(init=False)

    def __post_init__(self) -> None:
        """Look at the passes once, for all targets."""
        object.__setattr__(self, "order", read_step_order(self.plan))

    @property
    def num_ranks(self) -> int:
        """All ranks of the mesh."""
        mesh = self.plan.mesh
        return mesh.tp * mesh.cp * mesh.ep * mesh.pp * mesh.dp

    @property
    def gpus_per_host(self) -> int:
        """Of the cluster; without one, 8, or all ranks where there are fewer."""
        if self.laid is not None:
            return self.laid.exact_map.machine.gpus_per_host
        return min(8, self.num_ranks)

    def ledger(self) -> Ledger:
        """An empty account of all that the plan and its map say."""
        facts = plan_facts(self.plan, self.order)
        if self.laid is not None:
            facts |= map_facts(self.laid.exact_map, self.laid.cluster)
        return Ledger(facts)


@dataclass(frozen=True, slots=True)
class Handover:
    """What one target gets.

    Parameters
    ----------
    verdict
        The account of all facts.
    files
        Name -> content; none of a refused plan.
    emitted
        Names of the target's own settings that the files use.
    """

    verdict: Verdict
    files: Mapping[str, str]
    emitted: Iterable[str] = ()
