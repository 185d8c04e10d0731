"""Lay out a rank's arena: regions, then the pools of slots.

Everything begins at a multiple of 64 bytes and the arena ends with the last pool, so its size is the peak:

    params, grads   all elements of the rank's buckets; of sharded ones its share
    moments         two per element for AdamW, and a master copy where parameters are of another type
    staging         tokens and targets of a microbatch; `depth` messages for every channel that ends here
    workspace       the largest scratch of the passes that the rank runs
    pools           slots as large as the largest of the rank's stages, or of its buckets, needs

Pool o is host memory and takes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from exactmap.errors import InfeasibleError
from exactmap.sim.plan.plan import Arena, Bucket, Channel, Pool, Precision, Region
from exactmap.sim.schedules.sizes import StageSizes, align, dtype_bytes

__all__ = ["lay_out_arena"]


def lay_out_arena(
    rank: int,
    *,
    stages: Mapping[int, StageSizes],
    passes: AbstractSet[str],
    recomputes: bool = False,
    slots: Mapping[str, int],
    buckets: Sequence[Bucket],
    num_shards: int = 1,
    channels: Sequence[Channel],
    precision: Precision,
    budget_bytes: int = -1,
) -> tuple[Arena, list[Region], list[Pool]]:
    """Arena, regions and pools of one pipeline rank.

    Parameters
    ----------
    rank
        The pipeline rank.
    stages
        Sizes of the stages that it holds, by stage.
    passes
        Passes that it runs: words of ``F I W B RC``.
    recomputes
        Whether some F of it keeps no stash.
    slots
        Slots of each pool.
    buckets, channels
        All of the plan.
    num_shards
        Ranks that share a sharded bucket.
    precision
        Data types of parameters, gradients and moments.
    budget_bytes
        What a rank may take, -1: anything.

    Raises
    ------
    InfeasibleError
        If the arena is over the budget.
    """
    held = [bucket for bucket in buckets if bucket.stage in stages]
    elements = sum(bucket.elements // (num_shards if bucket.shard else 1) for bucket in held)
    largest_shared = max((bucket.elements for bucket in held if bucket.shard), default=0)
    num_moments = 2 + (precision.param != precision.moment)
    workspace = (
        sizes.pass_bytes(op, keeps_stash=not recomputes) for sizes in stages.values() for op in passes
    )
    region_bytes = {
        "params": dtype_bytes(precision.param, elements),
        "grads": dtype_bytes(precision.grad, elements),
        "moments": num_moments * dtype_bytes(precision.moment, elements),
        "staging": sum(sizes.staging_bytes for sizes in stages.values())
        + sum(align(channel.bytes) * channel.depth for channel in channels if channel.dst == rank),
        "workspace": max(workspace, default=0),
    }
    slot_bytes = {
        "h": max(sizes.h_bytes for sizes in stages.values()),
        "a": max(sizes.a_bytes for sizes in stages.values()),
        "w": max(sizes.w_bytes for sizes in stages.values()),
        "g": max(sizes.g_bytes for sizes in stages.values()),
        "k": max(sizes.k_bytes for sizes in stages.values()),
        "p": dtype_bytes(precision.param, largest_shared),
        "q": dtype_bytes(precision.grad, largest_shared),
        "o": max(sizes.host_bytes for sizes in stages.values()),
    }
    at = 0
    regions: list[Region] = []
    for kind, size in region_bytes.items():
        regions.append(Region(rank, kind, size, at))
        at += align(size)
    pools: list[Pool] = []
    for letter, size in slot_bytes.items():
        if slots.get(letter, 0):
            pools.append(Pool(rank, letter, slots[letter], align(size), 0 if letter == "o" else at))
            at += 0 if letter == "o" else slots[letter] * align(size)
    if 0 <= budget_bytes < at:
        largest = max(
            (
                *((region.bytes, region.kind) for region in regions),
                *((pool.num * pool.bytes, f"pool {pool.letter}") for pool in pools if pool.letter != "o"),
            )
        )
        raise InfeasibleError(
            "a rank's memory is over the budget",
            where=f"pipeline rank {rank}",
            got=f"{at} bytes",
            expected=f"at most {budget_bytes} bytes",
            hint=f"its largest part is {largest[1]} with {largest[0]} bytes",
        )
    return Arena(rank, at), regions, pools
