"""Collectives inside a pass: where members of a tensor or context group meet, and what each meeting takes.

The members of a group start a pass together and meet again at each of its collectives, so a pass with k of
them is k + 1 stretches of work, and each ends with the slowest member's. The order follows a layer as
`exactmap.sim.cost.stages` prices it: gather, attention, scatter, gather, scatter in F and I; the two gathers
in W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exactmap.sim.cost.stages import compute_ns, context_parallel_ns, tensor_parallel_parts
from exactmap.sim.workload.operators import Pass

if TYPE_CHECKING:
    from exactmap.sim.cost.formats import Formats
    from exactmap.sim.workload.model import ModelConfig, StageLike
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.mapping import Mesh

__all__ = ["Meeting", "pass_meetings"]


@dataclass(frozen=True, slots=True)
class Meeting:
    """One collective inside a pass: the axis of its group (``tp`` or ``cp``), and its time."""

    axis: str
    time_ns: int


def pass_meetings(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
) -> tuple[Meeting, ...]:
    """Collectives of one pass of a stage, in order; none where tp and cp are 1.

    Parameters are those of `exactmap.sim.cost.stages.stage_time_ns`; the times add up to what it counts as
    communication, up to rounding.
    """
    gather, scatter = (
        Meeting("tp", round(ns))
        for ns in (
            tensor_parallel_parts(model, microbatch, seq, mesh, cluster, formats) if mesh.tp > 1 else (0, 0)
        )
    )
    exchange: tuple[Meeting, ...] = ()
    if mesh.cp > 1 and step is not Pass.W and stage.num_layers:
        _, attention_ns = compute_ns(model, stage, step, microbatch, seq, mesh, cluster, formats)
        total = context_parallel_ns(model, stage, step, microbatch, seq, mesh, cluster, formats, attention_ns)
        exchange = (Meeting("cp", round(total / stage.num_layers)),)
    if mesh.tp == 1:
        return exchange * stage.num_layers
    if step is Pass.W:
        layer: tuple[Meeting, ...] = (gather, gather)
        first: tuple[Meeting, ...] = (gather,)
        last: tuple[Meeting, ...] = (gather,)
    else:
        layer = (gather, *exchange, scatter, gather, scatter)
        first = (scatter,) if step is Pass.F else ()
        last = (gather, scatter) if step is Pass.F else ()
    inside = layer * stage.num_layers
    return (*(first if stage.embedding else ()), *inside, *(last if stage.head else ()))
