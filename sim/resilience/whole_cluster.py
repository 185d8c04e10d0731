"""A plan on a cluster of which every component has a state: what is needed to step it, once for all steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.cost.meetings import pass_meetings
from exactmap.sim.cost.plan_header import formats_of, mesh_of, model_of
from exactmap.sim.engine.compiled import CompiledPlan, compile_plan
from exactmap.sim.engine.encoded import BUSY_KINDS
from exactmap.sim.engine.replay import replay_times
from exactmap.sim.engine.wide.cluster_times import ClusterTimes
from exactmap.sim.engine.wide.columns import Columns
from exactmap.sim.engine.wide.hiccups import MOST_EXPECTED, expected_hiccups
from exactmap.sim.engine.wide.link_factors import Demand, LinkFactors, demand_of
from exactmap.sim.engine.wide.work_rows import WorkRows, rows_of_plan
from exactmap.sim.workload.operators import Pass
from exactmap.topology.mapping import Axis, Mesh
from exactmap.topology.state.cluster_state import ClusterState, build_state
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.leaves import leaves_of
from exactmap.topology.state.spec import SlowUplink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exactmap.sim.cost.meetings import Meeting
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.engine.encoded import EncodedProgram, Ints
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.state.spec import StateSpec

__all__ = ["WholeCluster", "set_up"]

_AXES = (Axis.PP, Axis.DP, Axis.EP, Axis.CP, Axis.TP)


@dataclass(frozen=True, slots=True, eq=False)
class WholeCluster:
    """A plan on a cluster.

    Parameters
    ----------
    plan, cluster
        What runs where.
    compiled
        The plan with its nominal durations, ready to be replayed.
    state
        State of the cluster.
    gpu
        [pp, dp, ep, cp, tp] GPU of each rank.
    demand
        What the plan needs of uplinks.
    rows
        Works of each pipeline rank.
    first_waits
        Of each pipeline rank the instruction at which it first waits for other replicas, after its last pass;
        its END where it never does.
    nominal_ns
        Step time when all components are alike.
    nominal_period_ns
        The same with the free clock.
    """

    plan: Plan
    cluster: Cluster
    compiled: CompiledPlan
    state: ClusterState
    gpu: Ints
    demand: Demand
    rows: Sequence[WorkRows]
    first_waits: Sequence[int]
    nominal_ns: int
    nominal_period_ns: int

    def times(self, num_steps: int = 1, first_step: int = 0) -> ClusterTimes:
        """Durations of all GPUs in some steps."""
        mesh = self.plan.mesh
        return ClusterTimes(
            self.compiled.durations,
            Columns(num_steps, mesh.dp, mesh.ep, mesh.cp, mesh.tp),
            LinkFactors(self.plan, self.state, self.gpu, self.demand),
            rows=self.rows,
            step_ns=self.nominal_ns,
            first_step=first_step,
        )

    def owners(self, kind: ComponentKind) -> Ints:
        """[pp, dp, ep, cp, tp] component of a kind that each rank's GPU lies on."""
        state, gpu = self.state, self.gpu
        if kind is ComponentKind.HOST:
            return state.host_of(gpu)
        if kind is ComponentKind.RACK:
            return state.rack_of(gpu)
        return state.leaves.leaf[gpu] if kind is ComponentKind.LEAF else gpu

    def waiting(self) -> Callable[[Component], int]:
        """Counts the GPUs that take ranks, but not on a component."""
        of_kind = {kind: np.bincount(self.owners(kind).ravel()) for kind in ComponentKind}

        def count(component: Component) -> int:
            used = of_kind[component.kind]
            on_it = int(used[component.number]) if component.number < len(used) else 0
            return self.gpu.size - on_it

        return count

    def without_ranks(self) -> list[str]:
        """Stragglers that a scenario names and that change nothing: no rank lies on them."""
        found: list[str] = []
        of_kind = {kind: np.unique(self.owners(kind)) for kind in ComponentKind}
        for straggler in self.state.spec.stragglers:
            if isinstance(straggler, SlowUplink):
                used = of_kind[ComponentKind.LEAF].tolist()
                leaves = {name: int(self.state.leaves.uplinks(name)[0, 0]) for name in straggler.names}
                found += [name for name, leaf in leaves.items() if leaf not in used]
                continue
            for first, last in straggler.ids:
                idle = np.setdiff1d(np.arange(first, last + 1), of_kind[straggler.kind])
                found += [str(Component(straggler.kind, number)) for number in idle.tolist()]
        return list(dict.fromkeys(found))

    def with_state(self, state: ClusterState) -> WholeCluster:
        """The same plan on the same cluster in another state."""
        return replace(self, state=state)


def set_up(plan: Plan, profile: Profile, cluster: Cluster, spec: StateSpec) -> WholeCluster:
    """Lay a plan onto a cluster, draw the state of its components, and compile it.

    Parameters
    ----------
    plan
        A plan that passed its checks.
    profile
        Its nominal durations.
    cluster
        The machine.
    spec
        How much its components differ.

    Raises
    ------
    InfeasibleError
        If the plan does not fit the cluster.
    InvalidInputError
        If a duration is missing, a straggler does not exist, or GPUs stand still too often.
    """
    mesh = mesh_of(plan.mesh)
    placement = cluster.place(mesh)
    compiled = compile_plan(plan, profile)
    nominal = replay_times(compiled)
    nominal_ns = int(nominal.makespan_ns)
    expected = expected_hiccups(spec.hiccups_per_gpu_hour, nominal_ns)
    if expected > MOST_EXPECTED:
        raise InvalidInputError(
            "a GPU stands still too often",
            where=Place(field="state.hiccups.per_gpu_hour"),
            got=f"{expected:,.0f} times in a step of {nominal_ns / 1e9:.3g} s",
            expected=f"at most {MOST_EXPECTED:g} times a step",
            hint="what happens in every pass belongs into state.gpu.jitter",
        )
    num_messages = {name: len(times.wire_ns) for (_, name), times in compiled.durations.channels.items()}
    tiers = [placement.group_shape([Axis(axis) for axis in group.axes]).fabric_tier for group in plan.groups]
    gpu = placement.gpus(_ranks(mesh))
    return WholeCluster(
        plan=plan,
        cluster=cluster,
        compiled=compiled,
        state=build_state(cluster, spec, leaves_of(cluster).used_by(gpu)),
        gpu=gpu,
        demand=demand_of(plan, cluster, max(tiers, default=1), nominal_ns, num_messages),
        rows=rows_of_plan(compiled.durations, plan, _meetings(plan, mesh, cluster)),
        first_waits=[
            _first_wait(plan, compiled.durations.actors[0, pp].program) for pp in range(plan.mesh.pp)
        ],
        nominal_ns=nominal_ns,
        nominal_period_ns=int(nominal.period_ns),
    )


def _ranks(mesh: Mesh) -> Ints:
    """[pp, dp, ep, cp, tp] rank of each place on the mesh."""
    ranks = np.zeros([mesh.size(axis) for axis in _AXES], dtype=np.int64)
    for number, axis in enumerate(_AXES):
        places = np.arange(mesh.size(axis), dtype=np.int64) * mesh.stride(axis)
        ranks += places.reshape([-1 if other == number else 1 for other in range(len(_AXES))])
    return ranks


def _first_wait(plan: Plan, program: EncodedProgram) -> int:
    group = program.queue[program.post_at] - 2 * len(plan.channels)
    shared = [number for number, one in enumerate(plan.groups) if "dp" in one.axes]
    passes = np.flatnonzero(BUSY_KINDS[program.kind])
    last = int(passes[-1]) if len(passes) else -1
    wait = np.empty(len(program.post_at), dtype=np.int64)
    wait[program.post_of_wait] = program.wait_at
    later = wait[np.isin(group, shared)]
    return int(later[later > last].min(initial=program.num_instructions - 1))


def _meetings(plan: Plan, mesh: Mesh, cluster: Cluster) -> dict[tuple[str, int], tuple[Meeting, ...]]:
    """Collectives inside each pass; equal stages are looked at once."""
    if mesh.tp == mesh.cp == 1:
        return {}
    model, formats, train = model_of(plan.model), formats_of(plan), plan.train
    known: dict[tuple[int, bool, bool, Pass], tuple[Meeting, ...]] = {}
    meetings: dict[tuple[str, int], tuple[Meeting, ...]] = {}
    for number, stage in enumerate(plan.stages):
        for step in Pass:
            key = (stage.num_layers, stage.embedding, stage.head, step)
            if key not in known:
                known[key] = pass_meetings(
                    model, stage, step, train.microbatch, train.seq, mesh, cluster, formats
                )
            meetings[step.value, number] = known[key]
    return meetings
