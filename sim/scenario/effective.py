"""Write a scenario out in full: resolved, with every default, in the form that it is read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from exactmap.sim.scenario.state_section import effective_state
from exactmap.sim.scenario.types import Engine, Goal, Limits, ParallelSpace, Training
from exactmap.sim.scenario.units import show_bytes, show_bytes_per_s, show_flop_per_s, show_ns
from exactmap.sim.workload.model import ModelConfig
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.hardware import Cluster
from exactmap.topology.state.spec import StateSpec

__all__ = ["effective_document"]


def effective_document(
    *,
    name: str,
    model: ModelConfig,
    cluster: Cluster,
    training: Training,
    space: ParallelSpace,
    goal: Goal,
    limits: Limits,
    data_path: Path | None,
    execution: Engine | None,
    state: StateSpec,
) -> dict[str, object]:
    """The sections of a scenario as plain data, ready to be written as YAML."""
    sizes = {**asdict(model), "kind": model.kind.value}
    return {
        "exactmap": 1,
        "name": name,
        "cluster": _cluster(cluster),
        "model": {"name": sizes.pop("name"), **sizes},
        "training": {
            "sequence": f"{training.sequence} tokens",
            "batch": f"{training.batch_sequences} sequences",
            "steps": training.steps,
            "seed": training.seed,
            "precision": training.precision.value,
            "recompute": training.recompute,
            "optimizer": asdict(training.optimizer),
        },
        "data": {"path": None if data_path is None else str(data_path.resolve())},
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
        "goal": goal.value,
        "limits": {"memory_headroom": limits.memory_headroom, "gpus": limits.gpus},
        "state": effective_state(state),
        "execution": None if execution is None else {"engine": execution.value},
    }


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
        },
        "fabric": _fabric(cluster.fabric),
    }


def _fabric(fabric: FabricSpec) -> dict[str, object]:
    document: dict[str, object] = {
        "kind": fabric.kind.value,
        "switches": [
            {
                "name": switch.name,
                "ports": switch.num_ports,
                "port_rate": show_bytes_per_s(switch.port_bytes_per_s),
                "max_ports": switch.max_ports,
                "hop": show_ns(switch.hop_ns),
                "power": f"{switch.power_w} W",
            }
            for switch in fabric.switches
        ],
        "planes": fabric.planes,
        "rails": fabric.rails,
        "oversubscription": list(fabric.oversubscription),
        "cable": show_ns(fabric.cable_ns),
        "shape": list(fabric.shape),
    }
    return document | ({"tiers": fabric.num_tiers} if fabric.num_tiers else {})
