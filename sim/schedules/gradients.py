"""Buckets of parameters, the groups that sum their gradients, and when a bucket opens and closes.

One bucket per stage, or one for each kind of its parts. A token embedding whose head lies on another rank is
a bucket of its own on both sides, since both copies add up their gradients: over the replicas, then over all
ranks that hold a copy (group ``tie``). A tied head on the embedding's own rank has no bucket: it uses the
embedding's. A stage on two ranks sums its buckets over both (group ``twin``). Sharded buckets rest cut over
the replicas: gathered before use, their gradients reduced to the shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.plan import Bucket, Group, MeshDims, PlanModel, PlanStage, Tie
from exactmap.sim.schedules.sizes import StageSizes

__all__ = ["NORM_GROUP", "REPLICA_GROUP", "TIE_GROUP", "Gradients", "declare_gradients"]

NORM_GROUP = "norm"
"""Group over which the squares of the gradients are summed: the ranks that hold different parameters."""
PART_NORM_GROUP = "part"
"""Without a barrier the norm walks along the pipeline; this group sums it over each rank's mates before."""
CHECK_GROUP = "chk"
"""Group over which the total norm comes back in the next step."""
REPLICA_GROUP = "dp"
"""Group over which gradients are summed: the ranks that hold the same parameters and see other tokens."""
TIE_GROUP = "tie"
"""Group of the ranks that hold the embedding or its copy in the head."""

_PADDING = 16
_KINDS = (("wte", "wpe"), ("layers",), ("norm", "head"))


@dataclass(frozen=True, slots=True)
class Gradients:
    """Declarations about gradients.

    Attributes
    ----------
    buckets, groups, ties
        Lines of the plan.
    users
        `users[i]` are the stages whose passes use bucket i.
    norms
        Groups of the norms, in order.
    check
        Group that brings the total norm of the step before; empty with a barrier.
    num_shards
        Replicas that share a sharded bucket; 1 where none is sharded.
    """

    buckets: tuple[Bucket, ...]
    users: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...]
    ties: tuple[Tie, ...]
    norms: tuple[str, ...] = (NORM_GROUP,)
    check: str = ""
    num_shards: int = 1


def declare_gradients(
    model: PlanModel,
    mesh: MeshDims,
    stages: Sequence[PlanStage],
    placement: Sequence[tuple[int, ...]],
    sizes: Sequence[StageSizes],
    *,
    shard_params: bool = False,
    split_buckets: bool = False,
    late_norm: bool = False,
) -> Gradients:
    """Cut the parameters of all stages into buckets and name the groups that close them.

    Parameters
    ----------
    model, mesh, stages, sizes
        The plan's declarations, and each stage's parameters.
    placement
        The ranks of each stage.
    shard_params
        Cut buckets over the replicas.
    split_buckets
        Make embedding, layers and head of a stage buckets of their own.
    late_norm
        Sum the norm along the pipeline and check the total in the next step.

    Raises
    ------
    InvalidInputError
        If there are no replicas to cut buckets over.
    InfeasibleError
        If a tied head shares some of its embedding's ranks, not all.
    """
    head_stage = len(stages) - 1
    tied_apart = model.tied and not set(placement[head_stage]) <= set(placement[0])
    if tied_apart and set(placement[head_stage]) & set(placement[0]):
        raise InfeasibleError(
            "a tied head and its embedding must lie on the same ranks, or share none",
            got=f"embedding on {placement[0]}, head on {placement[head_stage]}",
        )
    replica_axes = _axes(mesh, ("cp", "ep", "dp"))
    if shard_params and not replica_axes:
        raise InvalidInputError(
            "parameters cannot be sharded: there is one replica", hint="raise dp, or leave them whole"
        )
    num_shards = prod((mesh.cp, mesh.ep, mesh.dp)) if shard_params else 1
    twins = sorted({tuple(sorted(ranks)) for ranks in placement if len(ranks) > 1})
    groups, norms = _norm_groups(mesh, replica_axes if shard_params else (), late_norm=late_norm)
    if replica_axes:
        groups.append(Group(REPLICA_GROUP, replica_axes))
    groups += [Group(_twin_name(ranks), ("pp",), pp=ranks) for ranks in twins]
    if tied_apart:
        holders = tuple(sorted({*placement[0], *placement[head_stage]}))
        groups.append(Group(TIE_GROUP, ("pp",), pp=holders))
    buckets: list[Bucket] = []
    users: list[tuple[int, ...]] = []
    tied: list[tuple[int, int]] = []
    for number, stage in enumerate(stages):
        ranks = placement[number]
        reduce = (REPLICA_GROUP,) if replica_axes else ()
        twin = (_twin_name(ranks),) if len(ranks) > 1 else ()
        parts = _parts(model, stage, has_own_head=not model.tied or tied_apart)
        shared = [part for part in parts if tied_apart and part in {"wte", "head"}]
        own = [part for part in parts if part not in shared]
        cuts = [[part for part in own if part in kind] for kind in _KINDS] if split_buckets else [own]
        for index, holds in enumerate(filter(None, (shared, *cuts))):
            if holds is shared:
                tied.append((number, index))
            elements = sum(sizes[number].elements[part] for part in holds)
            if shard_params:
                elements = -(-elements // (_PADDING * num_shards)) * _PADDING * num_shards
            # Ranks that hold a tied copy are summed at once: twins of it are among them.
            closers = (*reduce, TIE_GROUP) if holds is shared else (*reduce, *twin)
            shard = REPLICA_GROUP if shard_params else ""
            buckets.append(Bucket(number, index, tuple(holds), elements, shard=shard, reduce=closers))
            uses_head = model.tied and not tied_apart and "wte" in holds and head_stage != number
            users.append((number, head_stage) if uses_head else (number,))
    return Gradients(
        tuple(buckets),
        tuple(users),
        tuple(groups),
        (Tie(tied[0], tied[1]),) if tied else (),
        norms,
        CHECK_GROUP if late_norm else "",
        num_shards,
    )


def _twin_name(ranks: Sequence[int]) -> str:
    return "twin" + "_".join(map(str, sorted(ranks)))


def _norm_groups(
    mesh: MeshDims, shard_axes: tuple[str, ...], *, late_norm: bool
) -> tuple[list[Group], tuple[str, ...]]:
    """Groups of the norms; with a shard each replica knows the squares of its own part alone."""
    inner = _axes(mesh, ("tp",))
    if not late_norm:
        axes = {*inner, "pp", *shard_axes}
        named = tuple(axis for axis in ("tp", "cp", "ep", "pp", "dp") if axis in axes)
        return [Group(NORM_GROUP, named)], (NORM_GROUP,)
    scans = [Group(NORM_GROUP, ("pp",), scan="up"), Group(CHECK_GROUP, ("pp",), scan="down")]
    mates = (*inner, *shard_axes)
    if not mates:
        return scans, (NORM_GROUP,)
    return [Group(PART_NORM_GROUP, mates), *scans], (PART_NORM_GROUP, NORM_GROUP)


def _axes(mesh: MeshDims, names: Sequence[str]) -> tuple[str, ...]:
    sizes = {"tp": mesh.tp, "cp": mesh.cp, "ep": mesh.ep, "pp": mesh.pp, "dp": mesh.dp}
    return tuple(name for name in names if sizes[name] > 1)


def _parts(model: PlanModel, stage: PlanStage, *, has_own_head: bool) -> list[str]:
    here = {
        "wte": stage.embedding,
        "wpe": stage.embedding and model.kind == "gpt",
        "layers": stage.num_layers > 0,
        "norm": stage.head,
        "head": stage.head and has_own_head,
    }
    return [part for part, present in here.items() if present]
