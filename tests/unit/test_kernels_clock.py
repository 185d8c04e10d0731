"""The clock of kernels: formats, gradients added up, experts, GPUs that nobody measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.workload.kernel import Kernel, KernelKind, products
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Precision, Software

FORMATS = {
    "bf16": Precision(),
    "fp8": Precision("fp8", "fp8", "tensor"),
    "mxfp8": Precision("mxfp8", "fp8", "mx"),
    "nvfp4": Precision("nvfp4", "fp4", "nv"),
}


def clock(cluster: str = "h100-8", precision: str = "bf16", software: Software | None = None) -> KernelClock:
    """Clock of a catalog's GPU under Megatron-Bridge."""
    return KernelClock.of(
        load_cluster(cluster).gpu, software or Software("megatron-bridge"), FORMATS[precision]
    )


def up(step: Pass = Pass.F) -> Kernel:
    """The product of 8,192 tokens with a matrix of 8,192 x 28,672."""
    return next(kernel for kernel in products("up", "mlp", 8192, 8192, 28672) if kernel.step is step)


@pytest.mark.parametrize("cluster", ["b200-8", "gb200-nvl72", "gb300-nvl72"])
def test_narrower_training_products_are_faster(cluster: str) -> None:
    """BF16, MXFP8, NVFP4 in this order; FP8 with one factor no slower than MXFP8."""
    times = {name: clock(cluster, name).time_ns(up()) for name in FORMATS}

    assert times["bf16"] > 1.4 * times["mxfp8"] > 1.4 * 1.2 * times["nvfp4"]
    assert times["fp8"] <= times["mxfp8"]


def test_rows_scaled_apart_are_priced_in_sixteen_bits() -> None:
    """PyTorch's rowwise float8 was measured no faster than BF16."""
    rows = replace(FORMATS["fp8"], scaling="row")
    of = KernelClock.of(load_cluster("h100-8").gpu, Software("torchtitan"), rows)

    wide = KernelClock.of(load_cluster("h100-8").gpu, Software("torchtitan"), FORMATS["bf16"])
    assert of.time_ns(up()) == pytest.approx(wide.time_ns(up()))


def test_adding_to_a_gradient_costs_its_traffic() -> None:
    """The weight's gradient in 32 bits is slower than in 16, by six more bytes an element at most."""
    of = clock()
    narrow = KernelClock.of(of.gpu, of.software, replace(of.precision, grad_bytes=1.0))
    more = of.time_ns(up(Pass.W)) - narrow.time_ns(up(Pass.W))

    assert 0 < more < 2 * 6 * 8192 * 28672 / 2.8e12 * 1e9


def test_a_loop_over_experts_is_slower_than_one_kernel() -> None:
    """Sixteen experts of 256 tokens, in one launch or in one each."""
    one = products("expert_up", "moe", 256, 2048, 1536, 16)[0]._replace(launches=1.0)
    each = one._replace(launches=7.4)

    assert clock().time_ns(each) > 1.2 * clock().time_ns(one)


def test_experts_without_a_grouped_kernel_take_each_its_time() -> None:
    """A batch of plain products is that many products."""
    one = products("expert_up", "moe", 4096, 2048, 1536)[0]
    four = one._replace(batch=4, flop=4 * one.flop, num_bytes=4 * one.num_bytes)
    of = clock()
    gap = of.hardware.launch_ns

    assert of.time_ns(four) - gap == pytest.approx(4 * (of.time_ns(one) - gap), rel=1e-6)


def test_backward_attention_and_half_the_heads() -> None:
    """Backward has two and a half times the operations at a lower rate; half the heads take less than all."""
    flop = 2.0 * 32 * 8192 * 8192 * 128
    forward = Kernel(
        "attention", Pass.F, KernelKind.ATTENTION, "core_attn", flop, 0.0, 8192, 32, 128, wide=True
    )
    of = clock()

    assert of.time_ns(forward._replace(step=Pass.I, flop=2.5 * flop)) > 2.5 * of.time_ns(forward)
    assert 0.5 * of.time_ns(forward) < of.time_ns(forward._replace(flop=flop / 2)) < of.time_ns(forward)


def test_a_gpu_that_nobody_measured_says_so() -> None:
    """V100 has constant shares of its peak, and a warning; H100 has neither."""
    measured, other = clock(), clock("v100-8", software=Software("megatron"))
    for of in (measured, other):
        of.time_ns(up())

    assert measured.warnings() == ()
    assert other.warnings() == ("V100-32G: no measured kernels, constant shares of its peak instead",)


def test_products_far_outside_warn_when_much_time_is_theirs() -> None:
    """A product of 2 million rows alone warns; beside a hundred others of the measured size it does not."""
    far = products("head", "head", 2**21, 512, 512)[0]
    of = clock()
    of.time_ns(far)
    (warning,) = of.warnings()

    assert warning == "product head of 2,097,152 x 512 x 512: 128 x outside of what was measured"

    for width in range(100):
        of.time_ns(products("up", "mlp", 8192, 8192, 8192 + 64 * width)[0])
    assert of.warnings() == ()
