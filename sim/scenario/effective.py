"""Write a scenario out in full: resolved, with every default, in the form that it is read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from exactmap.sim.scenario.units import show_bytes, show_bytes_per_s, show_flop_per_s, show_ns

if TYPE_CHECKING:
    from exactmap.sim.scenario.scenario import Scenario
    from exactmap.topology.hardware import Cluster

__all__ = ["effective_document"]


def effective_document(scenario: Scenario) -> dict[str, object]:
    """The scenario as plain data, ready to be written as YAML."""
    model = asdict(scenario.model)
    model["kind"] = scenario.model.kind.value
    training = scenario.training
    space = scenario.parallel
    document: dict[str, object] = {
        "exactmap": 1,
        "name": scenario.name,
        "cluster": _cluster(scenario.cluster),
        "model": {"name": model.pop("name"), **model},
        "training": {
            "sequence": f"{training.sequence} tokens",
            "batch": f"{training.batch_sequences} sequences",
            "steps": training.steps,
            "seed": training.seed,
            "precision": training.precision.value,
            "recompute": training.recompute,
            "optimizer": asdict(training.optimizer),
        },
        "data": {"path": None if scenario.data_path is None else str(scenario.data_path.resolve())},
        "parallel": {
            axis: _choice(choice)
            for axis, choice in (
                ("tp", space.tp),
                ("cp", space.cp),
                ("ep", space.ep),
                ("pp", space.pp),
                ("dp", space.dp),
                ("chunks", space.chunks),
                ("microbatch", space.microbatch),
                ("schedule", space.schedule),
            )
        },
        "goal": scenario.goal.value,
        "limits": {"memory_headroom": scenario.limits.memory_headroom, "gpus": scenario.limits.gpus},
        "execution": None if scenario.execution is None else {"engine": scenario.execution.value},
    }
    return document


def _choice(choice: Sequence[int] | Sequence[str] | None) -> object:
    if choice is None:
        return "auto"
    return choice[0] if len(choice) == 1 else list(choice)


def _cluster(cluster: Cluster) -> dict[str, object]:
    gpu, up, out = cluster.gpu, cluster.scale_up, cluster.scale_out
    return {
        "name": cluster.name,
        "num_gpus": cluster.num_gpus,
        "gpus_per_host": cluster.gpus_per_host,
        "used_per_domain": cluster.used_per_domain,
        "gpu": {
            "name": gpu.name,
            "curves": gpu.curves,
            "peak": {dtype: show_flop_per_s(peak) for dtype, peak in gpu.peak_flop_per_s.items()},
            "memory": show_bytes(gpu.memory_bytes),
            "memory_bandwidth": show_bytes_per_s(gpu.memory_bytes_per_s),
            "memory_efficiency": gpu.memory_efficiency,
            "launch": show_ns(gpu.launch_ns),
            "reserved_memory": show_bytes(gpu.reserved_bytes),
            "power": f"{gpu.power_w} W",
        },
        "scale_up": {
            "name": up.name,
            "domain_size": up.domain_size,
            "bandwidth": show_bytes_per_s(up.bytes_per_s),
            "efficiency": up.efficiency,
            "latency": show_ns(up.latency_ns),
        },
        "scale_out": {
            "name": out.name,
            "bandwidth": show_bytes_per_s(out.bytes_per_s),
            "efficiency": out.efficiency,
            "latency": show_ns(out.latency_ns),
            "oversubscription": out.oversubscription,
        },
    }
