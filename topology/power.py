"""What a cluster draws, by component, idle and at rated load, without its fabric's switches and optics.

GPUs, hosts (processors, memory, drives, fans; NVSwitches of HGX boards), the switch trays of a scale-up
network that leaves its hosts, and network interfaces. Hosts and racks that are partly filled count whole,
since what is around the GPUs is there. Losses of conversion and cooling are left out; `Rack.power_w`, the
most that a whole rack may draw, has them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from exactmap.topology.hardware import Cluster

__all__ = ["ClusterPower", "Draw", "cluster_power"]


@dataclass(frozen=True, slots=True)
class Draw:
    """Power of one component, all of its pieces together.

    Parameters
    ----------
    name
        ``GPUs``, ``hosts``, ``NVLink switches``, ``interfaces``.
    num
        Pieces.
    idle_w, rated_w
        When nothing runs; at rated load.
    """

    name: str
    num: int
    idle_w: int
    rated_w: int


@dataclass(frozen=True, slots=True)
class ClusterPower:
    """Power of a cluster or of a part of it.

    Parameters
    ----------
    draws
        Its components.
    """

    draws: tuple[Draw, ...]

    @property
    def idle_w(self) -> int:
        """All components, idle."""
        return sum(draw.idle_w for draw in self.draws)

    @property
    def rated_w(self) -> int:
        """All components at rated load."""
        return sum(draw.rated_w for draw in self.draws)


def cluster_power(cluster: Cluster, *, per_rack: bool = False) -> ClusterPower:
    """Power of a cluster by component.

    Parameters
    ----------
    cluster
        The machine; a host or rack that nothing is known of draws nothing here.
    per_rack
        Of one full rack instead of all; of one host where nothing is known of racks.
    """
    if per_rack:
        hosts_of_rack = 1 if cluster.rack is None else cluster.rack.num_hosts
        cluster = replace(cluster, num_gpus=hosts_of_rack * cluster.gpus_per_host)
    gpu, host, rack = cluster.gpu, cluster.host, cluster.rack
    num_trays = 0 if rack is None else cluster.num_racks * rack.num_switch_trays
    # An interface keeps its links up: it draws the same whether or not data flows.
    interfaces_w = cluster.num_gpus * cluster.scale_out.power_w
    draws = [
        Draw("GPUs", cluster.num_gpus, cluster.num_gpus * gpu.idle_power_w, cluster.num_gpus * gpu.power_w)
    ]
    if host is not None:
        num = cluster.num_hosts
        draws.append(Draw("hosts", num, num * host.idle_power_w, num * host.power_w))
    if rack is not None and num_trays:
        draws.append(
            Draw(
                "NVLink switches",
                num_trays,
                num_trays * rack.tray_idle_power_w,
                num_trays * rack.tray_power_w,
            )
        )
    draws.append(Draw("interfaces", cluster.num_gpus, interfaces_w, interfaces_w))
    return ClusterPower(tuple(draws))
