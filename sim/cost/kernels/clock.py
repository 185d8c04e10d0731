"""Time of one kernel on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from exactmap.sim.cost.efficiency import Efficiency, efficiency_of, find_efficiency
from exactmap.sim.cost.kernels.attention import BACKWARD_SHARE, AttentionModel, attention_model
from exactmap.sim.cost.kernels.constants import (
    GpuConstants,
    SoftwareConstants,
    gpu_constants,
    software_constants,
)
from exactmap.sim.cost.kernels.gemm import ProductModel, product_model
from exactmap.sim.workload.kernel import is_eager
from exactmap.sim.workload.layer_work import Kernel, KernelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Precision, Software
from exactmap.topology.hardware import GPU

__all__ = ["KernelClock"]

_NARROW_HEADS = 0.6
"""Exponent of (head dimension / 128) in attention's rate on a GPU whose attention nobody measured."""
_LATENT_KEYS, _LATENT_VALUES = 192, 128
"""Latent attention's keys are wider than its values."""
_FOUR_BITS = 1.2
"""Rate of NVFP4 products in training over that of the serving libraries which were measured; the rows of
GB200 and of GB300 say the same."""
_MOST_SHARE = 0.92
"""Of its peak no product reaches more."""
_WIDE = 32768
"""A side of a product from which cuBLAS of 2022 chooses badly."""
_MEASURED = {"fp16": "bf16"}
_FAR, _MUCH = 16.0, 0.25
"""Times outside the measured sizes, and share of the kernels' time, from which a warning is due."""


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
    far: dict[Kernel, float] = field(default_factory=dict, compare=False, repr=False)

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

    def warnings(self) -> tuple[str, ...]:
        """What is unsure of the kernels priced so far: sizes that nobody measured, if much time is theirs."""
        found = []
        kernels = self.gpu.kernels or self.gpu.curves
        if attention_model(kernels) is None and self.gpu.gemm is None:
            found.append(f"{self.gpu.name}: no measured kernels, constant shares of its peak instead")
        if self.far and sum(map(self.known.__getitem__, self.far)) > _MUCH * sum(self.known.values()):
            kernel = max(self.far, key=self.known.__getitem__)
            found.append(
                f"product {kernel.name} of {kernel.m:,} x {kernel.n:,} x {kernel.k:,}: "
                f"{self.far[kernel]:.0f} x outside of what was measured"
            )
        return tuple(found)

    def _price(self, kernel: Kernel) -> float:
        gaps = kernel.launches * self.hardware.launch_ns
        if kernel.kind is KernelKind.GROUPED and kernel.launches > 1:
            gaps += kernel.batch * self.release.expert_ns
        moved = kernel.num_bytes * 1e9 / (self.gpu.memory_bytes_per_s * self.hardware.memory)
        if kernel.kind is KernelKind.MEMORY:
            return gaps + moved * self.release.traffic
        if kernel.kind is KernelKind.SCAN:
            return gaps + max(moved, kernel.flop * 1e9 / (self.gpu.peak("bf16") * self.hardware.scan))
        if kernel.kind is KernelKind.ATTENTION:
            return gaps + self._attention_ns(kernel)
        return gaps + max(self._product_ns(kernel), moved)

    def _attention_ns(self, kernel: Kernel) -> float:
        forward = kernel.step is Pass.F
        share = self.hardware.attention_forward if forward else self.hardware.attention_backward
        share *= self.release.attention * (1.0 if forward else BACKWARD_SHARE)
        model = attention_model(self.gpu.kernels or self.gpu.curves)
        if model is None:
            rate = self.efficiency.attention_flop_per_s(
                self.gpu.peak("bf16"), kernel.n, kernel.m, backward=False
            )
            return kernel.flop * 1e9 / (rate * share * float(min(1.0, kernel.k / 128) ** _NARROW_HEADS))
        return _whole_attention_ns(model, kernel) / share

    def _product_ns(self, kernel: Kernel) -> float:
        compute = "bf16" if kernel.wide and self.precision.narrow else self.precision.compute
        # A scale for each row (PyTorch's rowwise float8): published runs are no faster than in 16 bits.
        if self.precision.scaling == "row":
            compute = "bf16"
        compute = _MEASURED.get(compute, compute)
        share = self._share(kernel, narrow=compute in ("fp8", "fp4"))
        models = self._products(compute)
        peak = self.gpu.peak(compute)
        if compute == "fp4":
            share *= _FOUR_BITS
        if models:
            outside = models[0].residuals.outside(kernel.m, kernel.n, kernel.k)
            if outside > _FAR:
                self.far[kernel] = outside
            alone = min(self._alone_ns(model, kernel) for model in models)
            time = alone * self._own(compute, kernel) + self._accumulation_ns(models[0], kernel)
            time /= share
        else:
            rate = self.efficiency.gemm_flop_per_s(compute, peak, kernel.m, kernel.n, kernel.k)
            time = kernel.flop * 1e9 / (rate * share)
        return max(time, kernel.flop * 1e9 / (_MOST_SHARE * peak))

    def _own(self, compute: str, kernel: Kernel) -> float:
        """Time by a table of the user's own over what the packaged curve says of the same shape."""
        gpu = self.gpu
        if gpu.gemm is None or all(row.dtype != compute for row in gpu.gemm.rows):
            return 1.0
        shape = (compute, float(gpu.peak(compute)), kernel.m, kernel.n, kernel.k)
        usual = find_efficiency(gpu.kernels or gpu.curves).gemm_flop_per_s(*shape)
        return usual / self.efficiency.gemm_flop_per_s(*shape)

    def _share(self, kernel: Kernel, *, narrow: bool) -> float:
        """Rate in training over the model's."""
        hardware, release = self.hardware, self.release
        share = hardware.gemm * release.gemm
        if kernel.name == "head" and max(kernel.m, kernel.n, kernel.k) > _WIDE:
            share *= release.wide_gemm
        if kernel.kind is KernelKind.GROUPED:
            share *= release.grouped * (hardware.grouped_narrow if narrow else hardware.grouped)
        elif narrow:
            share *= hardware.narrow
        return share * release.narrow if narrow else share

    def _products(self, compute: str) -> list[ProductModel]:
        """Models of products, the fastest holds; none where the user's own timings or a constant share do.

        MXFP8 is block scaling with the scales that Blackwell's tensor cores read. One factor per tensor asks
        for less than block scaling does: where a library's kernels for it are slower, they lack tuning.
        """
        kernels = self.gpu.kernels or self.gpu.curves
        formats = [compute]
        if compute == "fp8":
            formats = ["fp8_block"] if self.precision.scaling in ("block", "mx") else ["fp8", "fp8_block"]
        return [model for each in formats if (model := product_model(kernels, each)) is not None]

    @staticmethod
    def _alone_ns(model: ProductModel, kernel: Kernel) -> float:
        """Products without what they are added to.

        One kernel for all experts fills the GPU with their tiles together. A loop over experts runs their
        products one after another, also where it deals them to several streams: each alone fills the GPU.
        """
        if kernel.kind is KernelKind.GROUPED and kernel.launches <= 1:
            return model.time_ns(kernel.m, kernel.n, kernel.k, kernel.batch)
        return kernel.batch * model.time_ns(kernel.m, kernel.n, kernel.k)

    def _accumulation_ns(self, model: ProductModel, kernel: Kernel) -> float:
        """What a weight's gradient costs more where it is added to the buffer of earlier microbatches.

        The product reads and writes the buffer at its end, where measured ones write 16 bits.
        """
        if kernel.step is not Pass.W or is_eager(self.software) or self.software.family == "jax":
            return 0.0
        more = 2.0 * self.precision.grad_bytes - 2.0
        return more * kernel.m * kernel.n * kernel.batch / model.physics.bytes_per_ns


def _whole_attention_ns(model: AttentionModel, kernel: Kernel) -> float:
    """Attention of a rank, by its share of the whole causal triangle: windows, context parallel, backward."""
    values = _LATENT_VALUES if kernel.k == _LATENT_KEYS else kernel.k
    whole = float(kernel.m) * kernel.m * kernel.n * (kernel.k + values)
    share = kernel.flop / whole
    if kernel.step is Pass.F and share < 1.0:
        # A part of the work fills the GPU as fewer heads do.
        rows = max(1, round(kernel.n * share))
        share *= kernel.n / rows
    else:
        rows = kernel.n
    return share * model.time_ns(rows, kernel.m, (kernel.k + values) / 2)
