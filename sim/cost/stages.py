"""Time of a stage's passes on a GPU: a roofline per operator, and the communication inside a layer.

Where the GPU's kernels were measured, layers and head are priced as predictions of published runs are
(`exactmap.sim.cost.stage_kernels`); the embedding, and everything on other devices, by operator::

    product     max(flop / rate(m, n, k), bytes / (bandwidth x share))   rate: measured, fixed costs included
    attention   flop / rate(batch x heads, tokens)                       rate: measured
    otherwise   launch + bytes / (bandwidth x share)

Tensor parallelism with sequence parallelism gathers a layer's input before the qkv and up products and
scatters after projection and down: two all-gathers and two reduce-scatters of [T, hidden] in F and in I, and
two all-gathers in W, which needs the gathered inputs again. They are taken as not hidden behind compute.
Context parallelism passes keys and values round a ring beside attention: of its all-gather (F) or all-gather
and reduce-scatter (I) only what outlasts the attention of the other (cp-1)/cp blocks is exposed, and one
latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from exactmap.sim.cost.efficiency import Efficiency, efficiency_of
from exactmap.sim.cost.formats import Formats
from exactmap.sim.cost.stage_kernels import has_kernels, layers_and_head_ns
from exactmap.sim.workload.model import ModelConfig, StageLike, StageShape
from exactmap.sim.workload.operators import Operator, OperatorKind, Pass, stage_operators
from exactmap.topology.collectives import Collective, collective_time
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh

__all__ = [
    "compute_ns",
    "context_parallel_ns",
    "operator_time_ns",
    "price_stages",
    "stage_time_ns",
    "tensor_parallel_parts",
]


def operator_time_ns(operator: Operator, cluster: Cluster, compute: str, efficiency: Efficiency) -> float:
    """Time of one run of an operator on one GPU, in ns.

    Parameters
    ----------
    operator
        The operator; `Operator.count` is not applied.
    cluster
        The machine.
    compute
        Number format of products.
    efficiency
        Measured kernels of the GPU.
    """
    gpu = cluster.gpu
    memory_ns = (
        (operator.read_bytes + operator.write_bytes) * 1e9 / (gpu.memory_bytes_per_s * gpu.memory_efficiency)
    )
    if operator.kind is OperatorKind.MEMORY:
        return gpu.launch_ns + memory_ns
    if operator.kind is OperatorKind.ATTENTION:
        # Attention computes in bf16 also where products are fp8.
        dtype = "bf16" if compute == "fp8" else compute
        rate = efficiency.attention_flop_per_s(
            gpu.peak(dtype), operator.n, operator.m, backward=operator.step is not Pass.F
        )
        return operator.flop * 1e9 / rate
    rate = efficiency.gemm_flop_per_s(compute, gpu.peak(compute), operator.m, operator.n, operator.k)
    return max(operator.flop * 1e9 / rate, memory_ns)


def stage_time_ns(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
    efficiency: Efficiency | None = None,
) -> int:
    """Time of one pass of a stage on one rank in ns, communication inside the layers included."""
    total, attention = compute_ns(
        model, stage, step, microbatch, seq, mesh, cluster, formats, efficiency=efficiency
    )
    total += _tensor_parallel_ns(model, stage, step, microbatch, seq, mesh, cluster, formats)
    total += context_parallel_ns(model, stage, step, microbatch, seq, mesh, cluster, formats, attention)
    return ceil(total)


def compute_ns(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
    *,
    efficiency: Efficiency | None = None,
) -> tuple[float, float]:
    """Time of a pass's operators in ns without any communication: of all, and of attention alone."""
    total = attention = 0.0
    if efficiency is None and has_kernels(cluster, formats.compute):
        total, attention = layers_and_head_ns(model, stage, step, microbatch, seq, mesh, cluster, formats)
        stage = StageShape(0, embedding=stage.embedding)
    efficiency = efficiency or efficiency_of(cluster.gpu)
    operators = stage_operators(
        model,
        stage,
        step,
        microbatch,
        seq,
        tp=mesh.tp,
        cp=mesh.cp,
        act_bytes=formats.act_bytes,
        weight_bytes=formats.param_bytes,
        grad_bytes=formats.grad_bytes,
    )
    for operator in operators:
        time_ns = operator_time_ns(operator, cluster, formats.compute, efficiency) * operator.count
        total += time_ns
        attention += time_ns if operator.kind is OperatorKind.ATTENTION else 0.0
    return total, attention


def _tensor_parallel_ns(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
) -> float:
    if mesh.tp == 1:
        return 0.0
    gather, scatter = tensor_parallel_parts(model, microbatch, seq, mesh, cluster, formats)
    per_layer = 2 * gather if step is Pass.W else 2 * (gather + scatter)
    total = stage.num_layers * per_layer
    if stage.embedding and step is not Pass.I:
        # The vocabulary is split: partial embeddings are summed, and their gradient is gathered.
        total += scatter if step is Pass.F else gather
    if stage.head:
        # F gathers the head's input and scatters its gradient, W gathers the input again.
        total += {Pass.F: gather + scatter, Pass.I: 0, Pass.W: gather}[step]
    return float(total)


def tensor_parallel_parts(
    model: ModelConfig, microbatch: int, seq: int, mesh: Mesh, cluster: Cluster, formats: Formats
) -> tuple[int, int]:
    """Time in ns of one all-gather and of one reduce-scatter of a layer's input over a tensor group."""
    shape = cluster.place(mesh).group_shape([Axis.TP])
    num_bytes = microbatch * -(-seq // mesh.cp) * model.hidden * formats.act_bytes
    gather = collective_time(cluster, Collective.ALL_GATHER, shape, num_bytes).time_ns
    scatter = collective_time(cluster, Collective.REDUCE_SCATTER, shape, num_bytes).time_ns
    return gather, scatter


def context_parallel_ns(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
    attention_ns: float,
) -> float:
    """Exposed time in ns of a pass's exchanges of keys and values; `attention_ns` is its attention."""
    if mesh.cp == 1 or step is Pass.W or stage.num_layers == 0:
        return 0.0
    shape = cluster.place(mesh).group_shape([Axis.CP])
    num_bytes = microbatch * seq * 2 * -(-model.kv_heads // mesh.tp) * model.head_dim * formats.act_bytes
    gather = collective_time(cluster, Collective.ALL_GATHER, shape, num_bytes)
    moved: float = gather.time_ns
    if step is Pass.I:
        moved += collective_time(cluster, Collective.REDUCE_SCATTER, shape, num_bytes).time_ns
    latency = collective_time(cluster, Collective.ALL_GATHER, shape, 1).time_ns
    hidden = attention_ns / stage.num_layers * (mesh.cp - 1) / mesh.cp
    return stage.num_layers * (max(0.0, moved - hidden) + latency)


def price_stages(
    model: ModelConfig,
    stages: Sequence[StageLike],
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
    efficiency: Efficiency | None = None,
) -> dict[tuple[str, int], int]:
    """Durations of F, I and W of each stage, for `Profile.work_ns`.

    Parameters
    ----------
    model
        The model.
    stages
        Its stages in order.
    microbatch, seq
        Sequences of a microbatch; tokens of a sequence.
    mesh
        The parallel axes; tp and cp cut a stage, the others do not change its time.
    cluster
        The machine.
    formats
        Number formats.
    efficiency
        Measured kernels; default: those of the cluster's GPU.

    Returns
    -------
    dict
        (op, stage) -> ns. Equal stages are computed once.
    """
    known: dict[tuple[int, bool, bool, Pass], int] = {}
    work_ns: dict[tuple[str, int], int] = {}
    for number, stage in enumerate(stages):
        for step in Pass:
            key = (stage.num_layers, stage.embedding, stage.head, step)
            if key not in known:
                known[key] = stage_time_ns(
                    model, stage, step, microbatch, seq, mesh, cluster, formats, efficiency
                )
            work_ns[step.value, number] = known[key]
    return work_ns
