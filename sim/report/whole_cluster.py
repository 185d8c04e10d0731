"""What a simulation of every GPU found: step times, who was waited for, what healing the worst buys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from exactmap.sim.report.distribution import Distribution
from exactmap.topology.state.components import Component, ComponentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exactmap.sim.resilience.blame import StepBlame
    from exactmap.sim.resilience.healing import Healed
    from exactmap.topology.state.cluster_state import ClusterState

__all__ = ["Blamed", "RunFacts", "Waiting", "WholeResult", "blame_by_component", "blame_by_place"]

SCHEMA_VERSION = 1
Waiting = Callable[[Component], int]
"""How many GPUs take ranks, but not on a component."""


@dataclass(frozen=True, slots=True)
class Blamed:
    """Mean excess per step charged to a component or a place; healing could take away `lasting_ns`.

    `num_waiting` GPUs take ranks elsewhere, and wait for it.
    """

    component: Component
    total_ns: int
    lasting_ns: int
    num_steps: int
    num_waiting: int = 0

    @property
    def idle_gpu_s(self) -> float:
        """Seconds that all other GPUs spend on waiting for it, in a step: excess x how many there are."""
        return self.total_ns * self.num_waiting / 1e9

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return {
            "component": str(self.component),
            "kind": self.component.kind.value,
            "number": self.component.number,
            "total_ns": self.total_ns,
            "lasting_ns": self.lasting_ns,
            "num_steps": self.num_steps,
            "idle_gpu_s": round(self.idle_gpu_s, 6),
        }


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How the simulation went: seconds, and works and messages stepped."""

    num_threads: int
    plan_s: float
    set_up_s: float
    stepping_s: float
    blame_s: float
    healing_s: float
    num_works: int
    num_messages: int

    @property
    def ops_per_s(self) -> float:
        """Works and messages stepped per second of stepping."""
        return (self.num_works + self.num_messages) / self.stepping_s if self.stepping_s else 0.0


@dataclass(frozen=True, slots=True)
class WholeResult:
    """Result of a simulation of every GPU.

    Parameters
    ----------
    plan_path, plan_sha256, basis
        Which plan, and what its nominal durations come from.
    cluster, num_gpus_installed, num_gpus_used, num_replicas
        Where.
    seed
        Of the cluster's state.
    nominal_ns, nominal_period_ns
        Step time when all components are alike, barrier and free clock.
    step
        Step times.
    period
        The same with the free clock.
    replica
        When replicas would be through without waiting for others, over all steps.
    waiting_share
        Share of all replicas' step that passes with waiting for the latest.
    blames
        Blame of the steps that were looked at closely.
    by_component, by_host, by_rack, by_leaf
        Mean excess per step by component, and summed over what hosts, racks and leaves hold.
    by_cause
        Mean excess per step by what took longer.
    shorter_path_ns
        Mean of what the paths that were found critical would take less than a nominal step, if all components
        were alike: charges, less this, are how much longer the steps were.
    rest_ns
        Mean of what a step takes beyond the path of its latest replica: ends of other replicas.
    healed
        Components healed one after the other, in the first step, and its time then.
    first_step_ns
        Time of the first step, before that, as the latest replica shows it.
    run
        How the simulation went.
    without_ranks
        Stragglers that were named, but that no rank lies on.
    """

    plan_path: str
    plan_sha256: str
    basis: str
    cluster: str
    num_gpus_installed: int
    num_gpus_used: int
    num_replicas: int
    seed: int
    nominal_ns: int
    nominal_period_ns: int
    step: Distribution
    period: Distribution
    replica: Distribution
    waiting_share: float
    blames: tuple[StepBlame, ...]
    by_component: tuple[Blamed, ...]
    by_host: tuple[Blamed, ...]
    by_rack: tuple[Blamed, ...]
    by_leaf: tuple[Blamed, ...]
    by_cause: Mapping[str, int]
    shorter_path_ns: int
    rest_ns: int
    healed: tuple[Healed, ...]
    first_step_ns: int
    run: RunFacts
    without_ranks: tuple[str, ...] = ()

    @property
    def slowdown(self) -> float:
        """Mean step over the nominal one, minus 1."""
        return self.step.mean_ns / self.nominal_ns - 1

    def worst(self) -> list[tuple[int, int]]:
        """(k, step time with the worst k components healed), k = 0, 1, 2, 4, .. and the last."""
        counts = [2**power for power in range(32) if 2**power <= len(self.healed)]
        counts = sorted({*counts, len(self.healed)} - {0})
        return [(0, self.first_step_ns), *((k, self.healed[k - 1].step_ns) for k in counts)]

    def to_dict(self) -> dict[str, object]:
        """As a JSON-ready document; `run` alone differs from one run to the next."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "whole_cluster",
            "plan": self.plan_path,
            "plan_sha256": self.plan_sha256,
            "basis": self.basis,
            "cluster": self.cluster,
            "num_gpus_installed": self.num_gpus_installed,
            "num_gpus_used": self.num_gpus_used,
            "num_replicas": self.num_replicas,
            "seed": self.seed,
            "stragglers_without_ranks": list(self.without_ranks),
            "nominal_step_ns": self.nominal_ns,
            "nominal_period_ns": self.nominal_period_ns,
            "step_time": asdict(self.step),
            "period": asdict(self.period),
            "replica_time": asdict(self.replica),
            "slowdown": round(self.slowdown, 9),
            "waiting_share": round(self.waiting_share, 9),
            "blame": {
                "num_steps": len(self.blames),
                "components": [entry.to_dict() for entry in self.by_component],
                "hosts": [entry.to_dict() for entry in self.by_host],
                "racks": [entry.to_dict() for entry in self.by_rack],
                "leaves": [entry.to_dict() for entry in self.by_leaf],
                "causes": dict(self.by_cause),
                "shorter_path_ns": self.shorter_path_ns,
                "rest_ns": self.rest_ns,
                "steps": [
                    {
                        "step": blame.step,
                        "replica": blame.dp,
                        "step_ns": blame.makespan_ns,
                        "path_ns": blame.path_ns,
                        "nominal_path_ns": blame.nominal_path_ns,
                    }
                    for blame in self.blames
                ],
            },
            "healed": {
                "before_ns": self.first_step_ns,
                "components": [
                    {"component": str(entry.component), "step_ns": entry.step_ns} for entry in self.healed
                ],
                "worst": [{"num": k, "step_ns": step_ns} for k, step_ns in self.worst()],
            },
            "run": {**asdict(self.run), "ops_per_s": round(self.run.ops_per_s)},
        }


def blame_by_component(blames: Iterable[StepBlame], waiting: Waiting) -> tuple[Blamed, ...]:
    """Mean charges per step by component, the largest first; `waiting` counts the GPUs elsewhere."""
    return _means(list(blames), lambda component: component, waiting)


def blame_by_place(
    blames: Iterable[StepBlame], kind: ComponentKind, state: ClusterState, waiting: Waiting
) -> tuple[Blamed, ...]:
    """Mean charges per step by the host, rack or leaf that a component is, or lies in."""

    def place(component: Component) -> Component | None:
        if component.kind is kind:
            return component
        gpu = component.number
        if component.kind is ComponentKind.HOST and kind is ComponentKind.RACK:
            gpu *= state.gpus_per_host
        elif component.kind not in {ComponentKind.GPU, ComponentKind.INTERFACE}:
            return None
        where = {
            ComponentKind.HOST: gpu // state.gpus_per_host,
            ComponentKind.RACK: gpu // state.gpus_per_rack,
            ComponentKind.LEAF: int(state.leaves.leaf[gpu]),
        }[kind]
        return Component(kind, where)

    return _means(list(blames), place, waiting)


def _means(
    blames: list[StepBlame], place: Callable[[Component], Component | None], waiting: Waiting
) -> tuple[Blamed, ...]:
    total: dict[Component, int] = defaultdict(int)
    lasting: dict[Component, int] = defaultdict(int)
    steps: dict[Component, set[int]] = defaultdict(set)
    for blame in blames:
        for charge in blame.charges:
            where = place(charge.component)
            if where is not None:
                total[where] += charge.total_ns
                lasting[where] += charge.lasting_ns
                steps[where].add(blame.step)
    num = max(1, len(blames))
    out = [
        Blamed(where, round(ns / num), round(lasting[where] / num), len(steps[where]), waiting(where))
        for where, ns in total.items()
    ]
    return tuple(sorted(out, key=lambda entry: (-entry.total_ns, entry.component)))
