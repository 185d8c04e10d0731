"""Memory of one rank: parameters, gradients, optimizer, stashes of the microbatches in flight, buffers.

The bytes of a stage's slots and workspace are those of `exactmap.sim.workload.footprint`, which mirrors the C
engine; here they are added up for a rank whose schedule is known only by how many microbatches it has in
flight, so that a search can price a candidate before it has a plan. A plan's own arena is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactmap.sim.cost.formats import Formats
from exactmap.sim.workload.footprint import PrecisionBytes, bucket_elements, stage_footprint
from exactmap.sim.workload.model import ModelConfig, StageLike, stage_parts

__all__ = ["RankMemory", "price_memory"]


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Bytes of one rank by what they are for.

    Parameters
    ----------
    parameter_bytes, gradient_bytes, optimizer_bytes
        State; the optimizer's includes its master copy of the parameters.
    activation_bytes
        Stashes of all microbatches in flight.
    buffer_bytes
        Stage inputs and outputs on their way.
    workspace_bytes
        Scratch of the largest pass.
    """

    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    buffer_bytes: int
    workspace_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return (
            self.parameter_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.activation_bytes
            + self.buffer_bytes
            + self.workspace_bytes
        )


def price_memory(
    model: ModelConfig,
    stages: Sequence[StageLike],
    microbatch: int,
    seq: int,
    formats: Formats,
    *,
    stash: float,
    split_backward: bool = False,
    stash_until_i: float | None = None,
    num_left_to_w: int = 1,
    tp: int = 1,
    cp: int = 1,
    recomputes: bool = False,
    num_shards: int = 1,
    whole_elements: int = 0,
) -> RankMemory:
    """Memory of a rank that holds some stages.

    Parameters
    ----------
    model
        The model.
    stages
        The stages of this rank (several if it runs chunks).
    microbatch, seq
        Sequences of a microbatch; tokens of a whole sequence.
    formats
        Widths.
    stash
        Most stashes held at once, each of one microbatch through one of the stages.
    split_backward
        Whether I and W are apart, so that what I leaves to W is stashed too.
    stash_until_i
        Most stashes held at once that I has not used yet; W needs only a part of a stash. Default: `stash`.
    num_left_to_w
        With `split_backward`, most works of I at once whose W has not run.
    tp, cp
        Ranks that share a layer; ranks that share a sequence.
    recomputes
        Whether forward passes are done again: of a stash in flight only the stage's input is kept.
    num_shards
        Ranks that share the state (ZeRO stage 1); 1: not sharded.
    whole_elements
        Of a sharded state: elements of the slots in which parameters, and gradients, are whole while a step
        runs.

    Examples
    --------
    >>> from exactmap.sim.cost.formats import find_formats
    >>> from exactmap.sim.workload.model import StageShape
    >>> from exactmap.sim.workload.presets import find_preset
    >>> rank = price_memory(find_preset("llama3-8b"), [StageShape(8)], 1, 4096, find_formats("bf16"), stash=4)
    >>> round(rank.parameter_bytes / 1e9, 2), round(rank.optimizer_bytes / 1e9, 2)
    (3.49, 20.94)
    """
    widths = PrecisionBytes(
        act_bytes=formats.act_bytes,
        param_bytes=formats.param_bytes,
        grad_bytes=formats.grad_bytes,
        moment_bytes=formats.moment_bytes,
    )
    tokens = -(-seq // cp)
    sizes = [stage_footprint(model, stage, microbatch, tokens, precision=widths, tp=tp) for stage in stages]
    elements = sum(
        bucket_elements(size, tuple(part.value for part in stage_parts(model, stage)))
        for size, stage in zip(sizes, stages, strict=True)
    )
    state = formats.master_bytes + 2 * formats.moment_bytes
    # Slots of a pool are as large as its largest stage needs.
    stash_bytes = sum(max(getattr(size, f"{letter}_bytes") for size in sizes) for letter in "awh")
    given_up = 0 if stash_until_i is None else (stash - stash_until_i) * max(size.a_bytes for size in sizes)
    left_to_w = num_left_to_w * max(size.g_bytes for size in sizes) if split_backward else 0
    passes = "FIW" if split_backward else "FB"
    stash_whole = round(stash * stash_bytes - given_up) + left_to_w
    workspace = max(size.workspace_bytes[letter] for size in sizes for letter in passes)
    if recomputes:
        # One stash at a time is whole; a pass that keeps none has its own beside its workspace.
        stash_whole = round(stash * max(size.h_bytes for size in sizes))
        stash_whole += max(size.a_bytes for size in sizes) + max(size.w_bytes for size in sizes)
        scratch = max(max(size.stashless_bytes, size.recompute_bytes) for size in sizes)
        workspace = max(workspace, scratch)
    # A stage's input lives with its stash; beside it an output and its gradient are on their way where a
    # stage follows, and the input's gradient where one comes before.
    num_buffers = 2 * any(not stage.head for stage in stages) + any(not stage.embedding for stage in stages)
    return RankMemory(
        parameter_bytes=(-(-elements // num_shards) + whole_elements) * formats.param_bytes,
        gradient_bytes=(-(-elements // num_shards) + whole_elements) * formats.grad_bytes,
        optimizer_bytes=-(-elements * state // num_shards),
        activation_bytes=stash_whole,
        buffer_bytes=num_buffers * max(size.h_bytes for size in sizes),
        workspace_bytes=workspace,
    )
