"""A cluster as plain data in the form that it is read in, every number written out and no part named."""

from __future__ import annotations

from exactmap.sim.scenario.units import (
    show_bytes,
    show_bytes_per_s,
    show_exp_per_s,
    show_flop_per_s,
    show_ns,
)
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.hardware import GPU, Cluster, Host, Rack

__all__ = ["cluster_document"]


def cluster_document(cluster: Cluster) -> dict[str, object]:
    """The ``cluster`` section that gives this cluster; measurements are named, not copied."""
    up, out = cluster.scale_up, cluster.scale_out
    document: dict[str, object] = {
        "name": cluster.name,
        "num_gpus": cluster.num_gpus,
        "gpus_per_host": cluster.gpus_per_host,
        "used_per_domain": cluster.used_per_domain,
        "gpu": _gpu(cluster.gpu),
        "scale_up": {
            "name": up.name,
            "domain_size": up.domain_size,
            "bandwidth": show_bytes_per_s(up.bytes_per_s),
            "efficiency": up.efficiency,
            "latency": show_ns(up.latency_ns),
            "reduction": up.reduction,
        },
        "scale_out": {
            "name": out.name,
            "bandwidth": show_bytes_per_s(out.bytes_per_s),
            "efficiency": out.efficiency,
            "latency": show_ns(out.latency_ns),
            **({"max_ports": out.max_ports} if out.max_ports else {}),
            "power": f"{out.power_w} W",
        },
        "fabric": _fabric(cluster.fabric),
    }
    if cluster.collectives is not None:
        document["collectives"] = list(cluster.collectives.files)
    if cluster.host is not None:
        document["host"] = _host(cluster.host)
    if cluster.rack is not None:
        document["rack"] = _rack(cluster.rack)
    return document


def _gpu(gpu: GPU) -> dict[str, object]:
    document: dict[str, object] = {
        "name": gpu.name,
        "curves": gpu.curves,
        "kernels": gpu.kernels,
        "peak": {dtype: show_flop_per_s(peak) for dtype, peak in gpu.peak_flop_per_s.items()},
        "recipe_peak": {dtype: show_flop_per_s(peak) for dtype, peak in gpu.recipe_peak_flop_per_s.items()},
        "memory": show_bytes(gpu.memory_bytes),
        "memory_bandwidth": show_bytes_per_s(gpu.memory_bytes_per_s),
        "memory_efficiency": gpu.memory_efficiency,
        "gemm_efficiency": gpu.gemm_efficiency,
        "attention_efficiency": gpu.attention_efficiency,
        "launch": show_ns(gpu.launch_ns),
        "reserved_memory": show_bytes(gpu.reserved_bytes),
        "exp_rate": show_exp_per_s(gpu.exp_per_s),
        "power": f"{gpu.power_w} W",
        "idle_power": f"{gpu.idle_power_w} W",
    }
    return document | ({} if gpu.gemm is None else {"gemm": str(gpu.gemm.path)})


def _host(host: Host) -> dict[str, object]:
    return {
        "name": host.name,
        "cpu": host.cpu,
        "cpus": host.num_cpus,
        "cores": host.num_cores,
        "memory": show_bytes(host.memory_bytes),
        "memory_bandwidth": show_bytes_per_s(host.memory_bytes_per_s),
        "link": host.link,
        "link_bandwidth": show_bytes_per_s(host.link_bytes_per_s),
        "to_gpu": show_bytes_per_s(host.to_gpu_bytes_per_s),
        "from_gpu": show_bytes_per_s(host.from_gpu_bytes_per_s),
        "power": f"{host.power_w} W",
        "idle_power": f"{host.idle_power_w} W",
    }


def _rack(rack: Rack) -> dict[str, object]:
    return {
        "name": rack.name,
        "hosts": rack.num_hosts,
        "switch_trays": rack.num_switch_trays,
        "chips_per_tray": rack.chips_per_tray,
        "tray_power": f"{rack.tray_power_w} W",
        "tray_idle_power": f"{rack.tray_idle_power_w} W",
        "power": f"{rack.power_w} W",
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
                "reduction": switch.reduction,
            }
            for switch in fabric.switches
        ],
        "cables": [
            {
                "name": cable.name,
                "bandwidth": show_bytes_per_s(cable.bytes_per_s),
                "power": f"{cable.power_w} W",
                "ns_per_m": cable.ns_per_m,
                "reach_m": cable.reach_m,
            }
            for cable in fabric.cables
        ],
        "planes": fabric.planes,
        "rails": fabric.rails,
        "oversubscription": list(fabric.oversubscription),
        "cable": show_ns(fabric.cable_ns),
        "shape": list(fabric.shape),
    }
    if fabric.graph:
        document["graph"] = [
            {"a": first, "b": second, "rate": show_bytes_per_s(int(rate)), "tier": tier}
            for first, second, rate, tier in fabric.graph
        ]
    return document | ({"tiers": fabric.num_tiers} if fabric.num_tiers else {})
