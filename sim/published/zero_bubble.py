"""Published throughput of 1F1B, interleaved 1F1B and zero-bubble schedules, from profiled passes and hops.

Qi et al. (arXiv:2401.10241) profiled F, I, W and a hop of four models and measured samples per second.
Schedules alone come out 4 to 15 % faster than measured; what is missing is modelled as for any step: messages
block the streams of both ends, every pass after one starts with an empty queue of launches, the optimizer
moves its bytes, and the slowest rank sets the pace. ZB-2p validates its optimizer step afterwards, so no
barrier ends its step.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

from exactmap.sim.cost.kernels.constants import gpu_constants, software_constants
from exactmap.sim.cost.spread import largest_of
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.bubbles import StageTimes
from exactmap.sim.step.layout import stage_ranks
from exactmap.sim.step.optimizer import update_bytes
from exactmap.sim.step.pipeline import pipeline_time
from exactmap.sim.workload.training import Software

__all__ = ["SCHEDULES", "Throughput", "predict_throughput", "throughputs"]

SCHEDULES = ("1f1b", "interleaved-1f1b", "zb-1p", "zb-2p")
"""As the columns are called."""

_VOCAB, _SEQ = 50_304, 1024


@dataclass(frozen=True, slots=True)
class Throughput:
    """One published case.

    Parameters
    ----------
    id, model
        Its name here, and the model's.
    layers, hidden, ranks, microbatches, microbatch
        Layers and width; pipeline ranks; microbatches of a step and sequences in each.
    forward_ns, input_ns, weight_ns, hop_ns
        Passes of one microbatch on a rank, and a hop, as profiled.
    measured
        Schedule -> samples per GPU and second.
    """

    id: str
    model: str
    layers: int
    hidden: int
    ranks: int
    microbatches: int
    microbatch: int
    forward_ns: float
    input_ns: float
    weight_ns: float
    hop_ns: float
    measured: dict[str, float]


def throughputs() -> list[Throughput]:
    """All cases."""
    text = files("exactmap.sim.published").joinpath("data", "zero-bubble.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return [
        Throughput(
            row["id"],
            row["model"],
            layers=int(row["layers"]),
            hidden=int(row["hidden"]),
            ranks=int(row["ranks"]),
            microbatches=int(row["microbatches"]),
            microbatch=int(row["microbatch"]),
            forward_ns=float(row["forward_ms"]) * 1e6,
            input_ns=float(row["input_ms"]) * 1e6,
            weight_ns=float(row["weight_ms"]) * 1e6,
            hop_ns=float(row["hop_ms"]) * 1e6,
            measured={name: float(row[name]) for name in SCHEDULES},
        )
        for row in rows
    ]


def predict_throughput(case: Throughput, schedule: str) -> float:
    """Samples per GPU and second under a schedule."""
    p, m = case.ranks, case.microbatches
    # A chunk is a layer where stages are interleaved.
    constants = software_constants(Software("zero-bubble"))
    gpu = load_cluster("a100-8").gpu
    hardware = gpu_constants(gpu)
    slowest = 1.0 + hardware.spread * largest_of(p)
    chunks = (case.layers + 2) // p if schedule == "interleaved-1f1b" else 1
    stages = p * chunks
    times = StageTimes(
        *([slowest * each / chunks] * stages for each in (case.forward_ns, case.input_ns, case.weight_ns))
    )
    name = {"zb-1p": "zb-h1"}.get(schedule, schedule)
    passes = pipeline_time(
        name,
        times,
        stage_ranks(name, p, stages),
        num_microbatches=m,
        hops_ns=[case.hop_ns] * (stages - 1),
        blocking=True,
        handover_ns=constants.handover_ns,
    )
    parameters = (12 * case.layers * case.hidden**2 + (_VOCAB + _SEQ) * case.hidden) / p
    rate = gpu.memory_bytes_per_s * hardware.memory
    update = parameters * update_bytes("fp16", 4, 2, 4, 4) * 1e9 / rate
    return case.microbatch * m * 1e9 / ((passes.total_ns + update) * p)
