"""Resources of a step, and the same step with one of them infinitely fast.

Arithmetic and memory are told apart kernel by kernel: without arithmetic a kernel still moves its bytes, with
free memory it still computes. A group of ranks counts to the furthest network that it crosses.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.workload.kernel import Kernel, KernelKind
from exactmap.topology.group_shape import Tier

__all__ = ["Resource", "idealised", "kernel_clock"]

_FAST = 10**6
"""So many times the bandwidth takes no time."""


class Resource(StrEnum):
    """What a step may be bound by."""

    ARITHMETIC = "arithmetic"
    """Products, attention and scans: the GPU's computing units."""
    MEMORY = "memory"
    """The GPU's memory bandwidth."""
    LAUNCH = "launch"
    """Gaps between kernels of one stream."""
    SCALE_UP = "scale_up"
    """The network inside domains."""
    SCALE_OUT = "scale_out"
    """The network between domains."""
    HOST = "host"
    """Launches that the GPU waits for, and what a step has outside its passes."""
    BUBBLE = "bubble"
    """Waiting for other pipeline ranks."""
    SPREAD = "spread"
    """Waiting for the slowest of equal GPUs."""


class _NoArithmetic(KernelClock):
    """Kernels that only move their bytes."""

    __slots__ = ()

    def time_ns(self, kernel: Kernel) -> float:
        time = KernelClock.time_ns(self, kernel)
        if kernel.kind is KernelKind.MEMORY:
            return time
        return min(time, KernelClock.time_ns(self, kernel._replace(kind=KernelKind.MEMORY)))


def kernel_clock(setup: TrainingSetup, free: Resource | None = None) -> KernelClock:
    """Kernels' times of a setup, with one resource free."""
    cluster = setup.cluster
    clock = KernelClock.of(cluster.gpu, setup.software, setup.precision)
    match free:
        case Resource.ARITHMETIC:
            return _NoArithmetic.of(cluster.gpu, setup.software, setup.precision)
        case Resource.MEMORY:
            fast = replace(cluster.gpu, memory_bytes_per_s=cluster.gpu.memory_bytes_per_s * _FAST)
            return replace(clock, gpu=fast, known={})
        case Resource.LAUNCH:
            return replace(clock, hardware=replace(clock.hardware, launch_ns=0.0), known={})
        case Resource.HOST:
            release = replace(clock.release, host_ns=0.0, step_ns=0.0, tensor_ns=0.0, handover_ns=0.0)
            return replace(clock, release=release, known={})
        case _:
            return clock


def idealised(setup: TrainingSetup, free: Resource) -> TrainingSetup:
    """The setup on a machine with one resource free, as far as the machine says it."""
    cluster = setup.cluster
    match free:
        case Resource.SCALE_UP | Resource.SCALE_OUT:
            return replace(setup, cluster=replace(cluster, ideal=cluster.ideal | {Tier(free.value)}))
        case Resource.MEMORY:
            gpu = replace(cluster.gpu, memory_bytes_per_s=cluster.gpu.memory_bytes_per_s * _FAST)
            return replace(setup, cluster=replace(cluster, gpu=gpu))
        case _:
            return setup
