"""Buckets of parameters, the groups that sum their gradients, and when a bucket closes.

One bucket per stage. A token embedding whose head lies on another rank is a bucket of its own on both sides,
since both copies add up their gradients: first over the replicas, then over the two ranks (group ``tie``). A
tied head on the embedding's own rank has no bucket: it uses the embedding's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Bucket, Group, MeshDims, PlanModel, PlanStage, Tie
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.sizes import StageSizes

__all__ = ["NORM_GROUP", "REPLICA_GROUP", "TIE_GROUP", "Gradients", "declare_gradients", "last_works"]

NORM_GROUP = "norm"
"""Group over which the squares of the gradients are summed: the ranks that hold different parameters."""
REPLICA_GROUP = "dp"
"""Group over which gradients are summed: the ranks that hold the same parameters and see other tokens."""
TIE_GROUP = "tie"
"""Group of the two ranks that hold the embedding and its copy in the head."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """Declarations about gradients; `users[i]` are the stages whose W or B add to bucket i."""

    buckets: tuple[Bucket, ...]
    users: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...]
    ties: tuple[Tie, ...]


def declare_gradients(
    model: PlanModel,
    mesh: MeshDims,
    stages: Sequence[PlanStage],
    placement: Sequence[int],
    sizes: Sequence[StageSizes],
) -> Gradients:
    """Cut the parameters of all stages into buckets and name the groups that close them."""
    head_stage = len(stages) - 1
    tied_apart = model.tied and placement[head_stage] != placement[0]
    groups = [Group(NORM_GROUP, _axes(mesh, ("tp",), always=("pp",)))]
    replica_axes = _axes(mesh, ("cp", "ep", "dp"))
    reduce: tuple[str, ...] = ()
    if replica_axes:
        groups.append(Group(REPLICA_GROUP, replica_axes))
        reduce = (REPLICA_GROUP,)
    if tied_apart:
        groups.append(Group(TIE_GROUP, ("pp",), pp=tuple(sorted((placement[0], placement[head_stage])))))
    buckets: list[Bucket] = []
    users: list[tuple[int, ...]] = []
    tied: list[tuple[int, int]] = []
    for number, stage in enumerate(stages):
        parts = _parts(model, stage, has_own_head=not model.tied or tied_apart)
        shared = [part for part in parts if tied_apart and part in {"wte", "head"}]
        own = [part for part in parts if part not in shared]
        for index, holds in enumerate(filter(None, (shared, own))):
            if holds is shared:
                tied.append((number, index))
            elements = sum(sizes[number].elements[part] for part in holds)
            closers = (*reduce, TIE_GROUP) if holds is shared else reduce
            buckets.append(Bucket(number, index, tuple(holds), elements, reduce=closers))
            uses_head = model.tied and not tied_apart and "wte" in holds and head_stage != number
            users.append((number, head_stage) if uses_head else (number,))
    ties = (Tie(tied[0], tied[1]),) if tied else ()
    return Gradients(tuple(buckets), tuple(users), tuple(groups), ties)


def last_works(order: Order, gradients: Gradients) -> tuple[int, ...]:
    """For each bucket the place, in its rank's order, of the last work that adds to it."""
    last = [-1] * order.num_stages
    for rank in range(order.num_ranks):
        for index, (op, stage, _, _, _) in enumerate(order.works(rank)):
            if op is Op.W or op is Op.B:
                last[stage] = index
    return tuple(max(last[stage] for stage in users) for users in gradients.users)


def _axes(mesh: MeshDims, names: Sequence[str], always: tuple[str, ...] = ()) -> tuple[str, ...]:
    sizes = {"tp": mesh.tp, "cp": mesh.cp, "ep": mesh.ep, "pp": mesh.pp, "dp": mesh.dp}
    return tuple(name for name in names if sizes[name] > 1) + always


def _parts(model: PlanModel, stage: PlanStage, *, has_own_head: bool) -> list[str]:
    here = {
        "wte": stage.embedding,
        "wpe": stage.embedding and model.kind == "gpt",
        "layers": stage.num_layers > 0,
        "norm": stage.head,
        "head": stage.head and has_own_head,
    }
    return [part for part, present in here.items() if present]
