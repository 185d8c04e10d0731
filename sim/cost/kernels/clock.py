"""Time of one kernel on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from exactmap.sim.cost.efficiency import Efficiency, efficiency_of
from exactmap.sim.cost.kernels.constants import (
    GpuConstants,
    SoftwareConstants,
    gpu_constants,
    software_constants,
)
from exactmap.sim.workload.layer_work import Kernel, KernelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Precision, Software
from exactmap.topology.hardware import GPU

__all__ = ["KernelClock"]

_NARROW_HEADS = {"A100-80G": 0.2, "V100": 0.2}
"""Exponent of (head dimension / 128) in attention's rate. On A100 products bound heads of 64 as well; from
Hopper on the exponentials do: H100 makes 3.7 T a second, 2.5 T at 650 TFLOP/s and 64 channels; B200 4.4 T
against 5.5 T."""
_SCAN_SHARE = 0.12
"""Share of the peak that a Mamba-2 scan reaches: its chunks are small, half its work is not in products."""
# A scale for each row (PyTorch's rowwise float8): published runs are no faster than in 16 bits.
_SCAN_PEAK_FLOP_PER_S = 990e12
"""Scans are Triton kernels written for Hopper: what Blackwell adds in products they do not use."""
_MOST_SHARE = 0.92
"""Of its peak no product reaches more."""
_STREAMS = 4
"""Products of experts that run at once: Transformer Engine's grouped products use four streams."""
_TILE = 128
_WIDE = 32768
"""A side of a product from which cuBLAS of 2022 chooses badly."""
_MEASURED = {"fp16": "bf16"}


@dataclass(frozen=True, slots=True)
class KernelClock:
    """Prices kernels of one GPU under one software and precision; keeps what it has priced."""

    gpu: GPU
    software: Software
    precision: Precision
    efficiency: Efficiency
    hardware: GpuConstants
    release: SoftwareConstants
    known: dict[Kernel, float] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, gpu: GPU, software: Software, precision: Precision) -> KernelClock:
        """Clock of a GPU with its constants and those of the release."""
        return cls(
            gpu, software, precision, efficiency_of(gpu), gpu_constants(gpu), software_constants(software)
        )

    def time_ns(self, kernel: Kernel) -> float:
        """Time of a kernel on the GPU in ns, its launches' gaps included, the host's time not."""
        time = self.known.get(kernel)
        if time is None:
            time = self.known[kernel] = self._price(kernel)
        return time

    def _price(self, kernel: Kernel) -> float:
        gaps = kernel.launches * self.hardware.launch_ns
        moved = kernel.num_bytes * 1e9 / (self.gpu.memory_bytes_per_s * self.hardware.memory)
        if kernel.kind is KernelKind.MEMORY:
            return gaps + moved * self.release.traffic
        if kernel.kind is KernelKind.SCAN:
            peak = min(self.gpu.peak("bf16"), _SCAN_PEAK_FLOP_PER_S)
            return gaps + max(moved, kernel.flop * 1e9 / (peak * _SCAN_SHARE))
        compute = "bf16" if kernel.wide and self.precision.narrow else self.precision.compute
        if self.precision.scaling == "row":
            compute = "bf16"
        compute = _MEASURED.get(compute, compute)
        if kernel.kind is KernelKind.ATTENTION:
            rate = self.efficiency.attention_flop_per_s(
                self.gpu.peak("bf16"), kernel.n, kernel.m, backward=False
            )
            share = (
                self.hardware.attention_forward if kernel.step is Pass.F else self.hardware.attention_backward
            )
            # Narrow heads have more exponentials for each product.
            narrow = _NARROW_HEADS.get(self.gpu.kernels or self.gpu.curves, 0.6)
            share *= float(min(1.0, kernel.k / 128) ** narrow)
            return gaps + kernel.flop * 1e9 / (rate * share * self.release.attention)
        share = self.hardware.gemm * self.release.gemm
        if kernel.name == "head" and max(kernel.m, kernel.n, kernel.k) > _WIDE:
            share *= self.release.wide_gemm
        narrow, grouped = compute in ("fp8", "fp4"), kernel.kind is KernelKind.GROUPED
        if grouped:
            share *= self.release.grouped * (
                self.hardware.grouped_narrow if narrow else self.hardware.grouped
            )
        elif narrow:
            share *= self.hardware.narrow
        if narrow:
            share *= self.release.narrow
        rows = kernel.m
        if grouped:
            # Products of several experts share the GPU; each fills whole tiles of its own.
            rows = kernel.m * min(kernel.batch, _STREAMS)
            share *= kernel.m / (-(-kernel.m // _TILE) * _TILE)
        rate = self.efficiency.gemm_flop_per_s(compute, self.gpu.peak(compute), rows, kernel.n, kernel.k)
        rate = min(rate * share, _MOST_SHARE * self.gpu.peak(compute))
        return gaps + max(kernel.flop * 1e9 / rate, moved)
