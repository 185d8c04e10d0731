"""Time of the optimizer and of what surrounds it: all of it moves bytes.

Per element of a rank's shard: gradients are made wide or scaled back (loss scaling looks for infinities
too), their norm is taken, they are clipped, AdamW reads the gradient and reads and writes the wide copy and
both moments, and the copy that products read is written. Before a step's first backward the gradients are
set to zero.
"""

from __future__ import annotations

from exactmap.sim.cost.groups import collective_ns, expert_shard_ranks, shard_ranks
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.step.stages import Stage

__all__ = ["optimizer_ns"]

_SCALAR_BYTES = 8


def optimizer_ns(clock: LayerClock, stages: list[Stage]) -> float:
    """Time of the update of one rank's stages in ns."""
    setup = clock.setup
    split, precision, gpu = setup.split, setup.precision, setup.cluster.gpu
    shards, expert_shards = (shard_ranks(split), expert_shard_ranks(split)) if split.zero else (1, 1)
    dense = sum(stage.dense + stage.embedding for stage in stages)
    expert = sum(stage.expert for stage in stages)
    updated = dense / shards + expert / expert_shards
    held = updated if split.zero >= 2 else dense + expert
    moved = updated * update_bytes(
        setup.precision.name,
        precision.grad_bytes,
        precision.param_bytes,
        precision.master_bytes,
        precision.moment_bytes,
        scale_inside=setup.software.family == "megatron-deepspeed",
    )
    moved += held * precision.grad_bytes
    rate = gpu.memory_bytes_per_s * clock.clock.hardware.memory
    norm = sum(
        collective_ns(setup.cluster, "all_reduce", clock.groups[name], _SCALAR_BYTES)
        for name in ("tp", "dp", "pp")
    )
    return moved * 1e9 / rate + norm


def update_bytes(
    name: str, grad: float, param: float, master: float, moment: float, *, scale_inside: bool = False
) -> float:
    """Bytes that an element's update moves.

    DeepSpeed keeps 16-bit gradients as they are, and its Adam divides by loss scale and clipping
    (`scale_inside`).

    Examples
    --------
    >>> update_bytes("bf16", 4, 2, 4, 4)
    42.0
    """
    wide = master or param
    norm = grad
    clip = 0.0 if scale_inside else 2 * grad
    adam = grad + 2 * (wide + 2 * moment)
    write = param if master else 0.0
    # Loss scaling: gradients are copied to wide ones and looked through; the narrow copy is made apart.
    unscale = grad + 4 + 4 + 4 if name == "fp16" and not scale_inside else 0.0
    return float(norm + clip + adam + write + unscale)
