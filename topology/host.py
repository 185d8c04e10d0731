"""What is around the GPUs: the host that they are plugged into, the rack that holds the hosts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Host", "Rack"]


@dataclass(frozen=True, slots=True)
class Host:
    """A host: processors, memory, and the link to each of its GPUs.

    Parameters
    ----------
    name
        What it is called.
    cpu
        Its processor.
    num_cpus, num_cores
        Processors; cores of all of them.
    memory_bytes, memory_bytes_per_s
        Memory of all processors, and its bandwidth.
    link
        What joins host and GPU.
    link_bytes_per_s
        Rate of that link, one direction.
    to_gpu_bytes_per_s, from_gpu_bytes_per_s
        What copies of one GPU reach, each direction by itself.
    power_w, idle_power_w
        Power at load and idle, without GPUs and without their network interfaces.
    """

    name: str
    cpu: str
    num_cpus: int
    num_cores: int
    memory_bytes: int
    memory_bytes_per_s: int
    link: str
    link_bytes_per_s: int
    to_gpu_bytes_per_s: int
    from_gpu_bytes_per_s: int
    power_w: int
    idle_power_w: int


@dataclass(frozen=True, slots=True)
class Rack:
    """A rack of hosts, with the switch trays of its scale-up network if that leaves the hosts.

    Parameters
    ----------
    name
        What it is called.
    num_hosts
        Hosts (compute trays) in it.
    num_switch_trays, chips_per_tray
        Switch trays of the scale-up network, and switch chips in each; 0 where it stays inside the hosts.
    tray_power_w, tray_idle_power_w
        Power of a switch tray at load and idle.
    power_w
        The most that the rack may draw, with conversion, pumps and management; 0: unknown.
    """

    name: str
    num_hosts: int
    num_switch_trays: int
    chips_per_tray: int
    tray_power_w: int
    tray_idle_power_w: int
    power_w: int = 0
