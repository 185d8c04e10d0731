"""A scenario as the rest of the program sees it: resolved, plain and frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from exactmap.sim.scenario.effective import effective_document
from exactmap.sim.scenario.types import Engine, Goal, Limits, ParallelSpace, Training
from exactmap.sim.workload.model import ModelConfig
from exactmap.topology.hardware import Cluster
from exactmap.topology.state.spec import HOMOGENEOUS, StateSpec

__all__ = ["Scenario"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario.

    Parameters
    ----------
    name
        What to call it.
    path
        Its file.
    model, cluster, training, parallel, goal, limits
        Its sections, resolved.
    data_path
        Token file or folder of text; None: the default corpus.
    execution
        The engine that is to run the plan; None if it is only to be planned.
    state
        How much the components of the cluster differ.
    notes
        Sentences that the user should read.
    """

    name: str
    path: Path
    model: ModelConfig
    cluster: Cluster
    training: Training
    parallel: ParallelSpace
    goal: Goal
    limits: Limits
    data_path: Path | None
    execution: Engine | None
    state: StateSpec = HOMOGENEOUS
    notes: tuple[str, ...] = ()

    @property
    def max_gpus(self) -> int:
        """GPUs that a plan may use."""
        usable = self.cluster.usable_gpus
        return usable if self.limits.gpus is None else min(usable, self.limits.gpus)

    @property
    def memory_budget_bytes(self) -> int:
        """Memory of one GPU that a plan may fill: all of it less what is reserved and the headroom."""
        gpu = self.cluster.gpu
        return int((gpu.memory_bytes - gpu.reserved_bytes) * (1.0 - self.limits.memory_headroom))

    def effective(self) -> str:
        """The scenario as YAML with every default written out; reading it gives an equal scenario."""
        document = effective_document(
            name=self.name,
            model=self.model,
            cluster=self.cluster,
            training=self.training,
            space=self.parallel,
            goal=self.goal,
            limits=self.limits,
            data_path=self.data_path,
            execution=self.execution,
            state=self.state,
        )
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
