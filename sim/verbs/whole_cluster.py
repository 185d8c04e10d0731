"""Simulate every GPU of a cluster: the state of each, many steps, who was waited for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.files import read_bytes
from exactmap.sim.cost.cost_lines import profile_from_cost_lines
from exactmap.sim.cost.profile import Profile
from exactmap.sim.plan.check import load_plan
from exactmap.sim.report.distribution import describe
from exactmap.sim.report.whole_cluster import RunFacts, WholeResult, blame_by_component, blame_by_place
from exactmap.sim.resilience.monte_carlo import WholeSteps, step_whole
from exactmap.sim.resilience.whole_cluster import WholeCluster, set_up
from exactmap.sim.scenario.mapped_cluster import is_scenario, load_mapped_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.scenario.state_section import state_of_overrides
from exactmap.sim.verbs.folders import make_folder
from exactmap.sim.verbs.input_kind import InputKind, refuse_others
from exactmap.sim.verbs.plan_mesh import mesh_on
from exactmap.sim.verbs.simulate import MAX_PROFILE_BYTES
from exactmap.sim.verbs.whole_cluster_files import write_whole
from exactmap.topology.state.components import ComponentKind

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.planner.search import Progress
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.state.spec import StateSpec

__all__ = ["WholeSimulation", "simulate_whole"]

MAX_STEPS = 1_000_000
MAX_HEALED = 4096
_OF_MACHINE = ("cluster", "map", "state")


@dataclass(frozen=True, slots=True, eq=False)
class WholeSimulation:
    """What was found, what it was found with, and the files that were written."""

    whole: WholeCluster
    steps: WholeSteps
    result: WholeResult
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The result as a JSON-ready document."""
        return self.result.to_dict() | {"files": [str(path) for path in self.files]}


@dataclass(frozen=True, slots=True)
class _Given:
    """A plan with its prices, and the machine that it is for."""

    plan: Plan
    sha256: str
    path: str
    profile: Profile
    basis: str
    cluster: Cluster
    state: StateSpec


def simulate_whole(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    cluster: str | Path | None = None,
    profile: str | Path | None = None,
    num_steps: int = 1,
    seed: int | None = None,
    most_healed: int = 16,
    num_threads: int = 2,
    out: str | Path | None = None,
    pictures: bool = True,
    progress: Progress | None = None,
) -> WholeSimulation:
    """Step every GPU of a cluster with a state and durations of its own.

    Parameters
    ----------
    path
        A scenario, whose best plan is chosen first, or a plan.
    overrides
        ``a.b=c``; for a plan those of ``cluster``, ``map`` and ``state``.
    cluster
        For a plan: name in the catalog, a cluster file, or a scenario whose cluster, map and state it takes.
    profile
        Nominal durations as a JSON file, instead of the plan's own cost lines.
    num_steps
        Steps to simulate, each with new jitter.
    seed
        Of the state, instead of the scenario's.
    most_healed
        How many of the worst components to heal, one after the other.
    num_threads
        Threads that step columns; the result does not depend on it.
    out
        Folder for ``whole-cluster.json``, ``step-times.csv``, ``gpus.csv`` and pictures.
    pictures
        Whether to draw ``racks.png`` and ``histograms.png``.
    progress
        Told how far it is.

    Raises
    ------
    InvalidInputError
        If an argument is out of range, or a component does not exist.
    InfeasibleError
        If the plan does not fit the cluster.
    """
    for what, got, low, high in (
        ("steps", num_steps, 1, MAX_STEPS),
        ("components to heal", most_healed, 0, MAX_HEALED),
        ("threads", num_threads, 1, 256),
        ("seed", 0 if seed is None else seed, 0, 2**63 - 1),
    ):
        if not low <= got <= high:
            raise InvalidInputError(f"{what} out of range", got=str(got), expected=f"{low} to {high}")
    start = perf_counter()
    given = _given(path, overrides, cluster, profile, progress)
    planned = perf_counter()
    spec = given.state if seed is None else replace(given.state, seed=seed)
    whole = set_up(given.plan, given.profile, given.cluster, spec)
    ready = perf_counter()
    steps = step_whole(whole, num_steps, num_threads=num_threads, most_healed=most_healed, progress=progress)
    run = RunFacts(
        num_threads=num_threads,
        plan_s=round(planned - start, 3),
        set_up_s=round(ready - planned, 3),
        stepping_s=round(steps.stepping_s, 3),
        blame_s=round(steps.blame_s, 3),
        healing_s=round(steps.healing_s, 3),
        num_works=steps.num_works,
        num_messages=steps.num_messages,
    )
    result = _result(given, whole, steps, run)
    files = () if out is None else write_whole(whole, steps, result, make_folder(out), pictures=pictures)
    return WholeSimulation(whole, steps, result, files)


def _given(
    path: str | Path,
    overrides: Sequence[str],
    cluster: str | Path | None,
    profile: str | Path | None,
    progress: Progress | None,
) -> _Given:
    kind = refuse_others(path, "a plan or a scenario", InputKind.PLAN, InputKind.SCENARIO)
    if kind is InputKind.PLAN or Path(path).suffix == ".plan":
        if cluster is None:
            raise InvalidInputError(
                "a plan does not say which machine it is for",
                where=str(path),
                hint="name it: --cluster gb300-nvl72, or --cluster my.yaml (a cluster file or a scenario)",
            )
        plan, sha256 = load_plan(path)
        machine, state = _machine(cluster, overrides)
        mesh_on(plan, machine)
        if profile is None:
            basis = dict(plan.made).get("priced_with", "the plan's cost lines")
            return _Given(
                plan, sha256, str(path), profile_from_cost_lines(plan.cost, str(path)), basis, machine, state
            )
        return _Given(plan, sha256, str(path), *_read_profile(profile), machine, state)
    if cluster is not None:
        raise InvalidInputError(
            "a scenario has its own cluster",
            where=str(path),
            got=f"--cluster {cluster}",
            hint="use --set cluster=..",
        )
    from exactmap.sim.verbs.plan import plan as choose

    chosen = choose(path, overrides, progress=progress)
    winner, scenario = chosen.ranking.winner, chosen.scenario
    prices = (
        (winner.profile, dict(chosen.plan.made)["priced_with"]) if profile is None else _read_profile(profile)
    )
    return _Given(
        chosen.plan, chosen.sha256, f"(chosen for {path})", *prices, scenario.cluster, scenario.state
    )


def _machine(source: str | Path, overrides: Sequence[str]) -> tuple[Cluster, StateSpec]:
    """The machine for a plan, with its map; the state is the scenario's, where a scenario is named."""
    for text in overrides:
        if text.partition("=")[0].strip().partition(".")[0] not in _OF_MACHINE:
            raise InvalidInputError(
                "a plan has no such field to set",
                where=f"--set {text}",
                expected="a field of cluster, map or state",
            )
    if is_scenario(source):
        scenario = load_scenario(source, overrides)
        return scenario.cluster, scenario.state
    of_state = [text for text in overrides if text.lstrip().startswith("state")]
    machine = load_mapped_cluster(source, [text for text in overrides if text not in of_state])
    return machine, state_of_overrides(of_state, machine)


def _read_profile(path: str | Path) -> tuple[Profile, str]:
    text = read_bytes(path, MAX_PROFILE_BYTES, "profile").decode("utf-8", errors="replace")
    return Profile.from_json(text, path), f"profile {path}"


def _result(given: _Given, whole: WholeCluster, steps: WholeSteps, run: RunFacts) -> WholeResult:
    latest = steps.replica_ns.max(axis=1)
    waiting = float((latest - steps.replica_ns.mean(axis=1)).mean()) / float(steps.makespan_ns.mean())
    by_cause: dict[str, int] = {}
    for blame in steps.blames:
        for charge in blame.charges:
            by_cause[charge.cause.value] = by_cause.get(charge.cause.value, 0) + charge.total_ns
    state, others = whole.state, whole.waiting()
    return WholeResult(
        plan_path=given.path,
        plan_sha256=given.sha256,
        basis=given.basis,
        cluster=given.cluster.name,
        num_gpus_installed=given.cluster.num_gpus,
        num_gpus_used=whole.gpu.size,
        num_replicas=given.plan.mesh.dp,
        seed=state.spec.seed,
        nominal_ns=whole.nominal_ns,
        nominal_period_ns=whole.nominal_period_ns,
        step=describe(steps.makespan_ns),
        period=describe(steps.period_ns),
        replica=describe(steps.replica_ns),
        waiting_share=waiting,
        blames=steps.blames,
        by_component=blame_by_component(steps.blames, others),
        by_host=blame_by_place(steps.blames, ComponentKind.HOST, state, others),
        by_rack=blame_by_place(steps.blames, ComponentKind.RACK, state, others),
        by_leaf=blame_by_place(steps.blames, ComponentKind.LEAF, state, others),
        by_cause={cause: round(ns / len(steps.blames)) for cause, ns in sorted(by_cause.items())},
        shorter_path_ns=_mean(whole.nominal_ns - blame.nominal_path_ns for blame in steps.blames),
        rest_ns=_mean(blame.makespan_ns - blame.path_ns for blame in steps.blames),
        healed=steps.healed,
        first_step_ns=steps.first_step_ns,
        run=run,
        without_ranks=tuple(whole.without_ranks()),
    )


def _mean(numbers: Iterable[int]) -> int:
    given = list(numbers)
    return round(sum(given) / len(given))
