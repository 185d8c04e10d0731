"""All that a plan says, named one by one, so that a hand-over can account for each.

Fields of a plan are walked, not listed: one that is added to the plan later is a fact here at once. What a
plan leaves out (no ties, no memory budget, no recomputation) is none.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import groupby

from exactmap.sim.handover.step_order import StepOrder
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Plan
from exactmap.topology.exact_map.exact_map import ExactMap

__all__ = ["map_facts", "plan_facts"]

_TABLES = ("model", "train", "precision", "mesh")
"""Declarations each of whose fields is a fact of its own."""

_TOLD_BELOW = frozenset({"stages", "place", "programs", "buckets"})

_NOT_SAID: tuple[object, ...] = ((), "", -1)

_PLACEMENTS = {
    "loop": "stage s on rank s mod {pp}",
    "vee": "stages down the ranks and up again",
    "two": "a stage on two ranks, parameters held twice",
    "other": "stages on ranks as they come",
}


def plan_facts(plan: Plan, order: StepOrder) -> dict[str, str]:
    """Name of each fact -> what the plan says.

    Examples
    --------
    >>> from exactmap.sim.handover.step_order import read_step_order
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.workload.presets import find_preset
    >>> plan = build_plan(find_preset("byte-tiny"), schedule="1f1b", pp=2, num_microbatches=4, seq=64)
    >>> facts = plan_facts(plan, read_step_order(plan))
    >>> facts["mesh.pp"], facts["stages.layers"], facts["passes.order"]
    ('2', '2 stages of 2 layers', '1f1b, 4 microbatches')
    """
    facts: dict[str, str] = {}
    for table in _TABLES:
        part = getattr(plan, table)
        for field in fields(part):
            facts[f"{table}.{field.name}"] = _text(getattr(part, field.name))
    facts["stages.layers"] = _layers(plan)
    parts = sorted({name for stage in plan.stages for name in stage.parts})
    if parts:
        facts["stages.parts"] = f"passes cut into {', '.join(parts)}"
    facts["place"] = _PLACEMENTS[order.placement].format(pp=plan.mesh.pp)
    facts |= _pass_facts(plan, order)
    facts |= _bucket_facts(plan)
    for field in fields(plan):
        value = getattr(plan, field.name)
        if field.compare and field.name not in {*_TABLES, *_TOLD_BELOW} and value not in _NOT_SAID:
            facts[field.name] = _brief(field.name, value)
    if not any(line.dp >= 0 for line in plan.maps):
        del facts["maps"]
    return facts


def map_facts(exact_map: ExactMap, cluster: str) -> dict[str, str]:
    """What a map says beside the plan: which GPUs, what stays spare, what is kept whole."""
    machine, request = exact_map.machine, exact_map.request
    num_hosts = len(set(machine.host(exact_map.gpu).tolist()))
    hosts = f"{num_hosts:,} host{'s' * (num_hosts > 1)}"
    facts = {
        "map.gpus": f"{exact_map.mesh.num_ranks:,} ranks on {hosts} of {cluster}",
        "map.spares": f"racks leave out {request.spares.value}",
    }
    if request.exclude:
        facts["map.exclude"] = ", ".join(map(str, request.exclude))
    if request.require:
        facts["map.require"] = ", ".join(map(str, request.require))
    return facts


def _layers(plan: Plan) -> str:
    runs = [(count, len(list(run))) for count, run in groupby(stage.num_layers for stage in plan.stages)]
    words = [f"{number} stage{'s' * (number > 1)} of {count} layers" for count, number in runs]
    if len(words) > 6:
        words = [*words[:5], f".. ({len(plan.stages)} stages)"]
    return ", ".join(words)


def _pass_facts(plan: Plan, order: StepOrder) -> dict[str, str]:
    name = next((value for key, value in plan.made if key == "schedule"), "an order of its own")
    facts = {"passes.order": f"{name}, {plan.train.m} microbatches"}
    if order.splits:
        facts["passes.split"] = "input and weight gradients (I, W) are passes of their own"
    if order.braids:
        facts["passes.braids"] = "forward and backward passes of two microbatches run as one (FB)"
    if order.recomputed:
        facts["passes.recomputed"] = f"{order.recomputed} of {order.num_items} forward passes done again (RC)"
    if order.offloaded:
        facts["passes.offloaded"] = (
            f"{order.offloaded} of {order.num_items} stashes sent to the host (OFF, LD)"
        )
    if plan.clock == "free" and any(
        instruction.op in {Op.PV, Op.UNDO}
        for program in plan.programs
        for instruction in program.instructions
    ):
        facts["passes.late_norm"] = "OPT trusts a partial norm; CHK, PV and UNDO set it right later"
    return facts


def _bucket_facts(plan: Plan) -> dict[str, str]:
    sharded = sum(bool(bucket.shard) for bucket in plan.buckets)
    reduced = sorted({group for bucket in plan.buckets for group in bucket.reduce})
    facts = {
        "buckets": f"{len(plan.buckets)} buckets of gradients, reduced over {', '.join(reduced) or 'none'}"
    }
    if sharded:
        facts["buckets.shard"] = f"{sharded} of {len(plan.buckets)} rest cut over the replicas"
    return facts


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _brief(name: str, value: object) -> str:
    """What a declaration says, in a few words: not all channels, but how many."""
    if name == "maps":
        assert isinstance(value, tuple)
        return f"{sum(line.dp >= 0 for line in value)} programs of single replicas"
    if name in {"made", "cost", "pred"} and isinstance(value, tuple):
        pairs = [f"{key}={number}" for key, number in value]
        return " ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
    if name == "couple" and isinstance(value, tuple):
        return " ".join(f"{kind}={','.join(axes)}" for kind, axes in value)
    if name == "arenas" and isinstance(value, tuple):
        return f"at most {max(arena.bytes for arena in value):,} bytes a rank"
    if isinstance(value, tuple):
        return f"{len(value)} of them"
    return _text(value)
