"""Passes of one layer on one rank: its kernels, its exchanges, and the host that launches them.

F, I and W are priced apart, so that a schedule may move W; what is computed again belongs to I. A pass takes
what its kernels and exposed exchanges take, or what the host needs to launch them, whichever is longer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from exactmap.sim.cost.exchanges import ExchangeClock
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.workload.layer_work import Exchange, KernelKind, LayerWork
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.recomputed import recomputed_share

__all__ = ["LayerClock", "LayerPrice"]

_GRAPH_SHARE = 0.2
"""Host time per launch that CUDA graphs leave."""

_CAPTURED = {
    "attn": ("attn", "core_attn", "mla_up_proj", "layernorm", "residual"),
    "mamba": ("mamba", "layernorm", "residual"),
    "mlp": ("mlp", "mlp_act", "layernorm", "residual"),
    "moe_router": ("moe_router", "shared_experts", "layernorm"),
    "moe_preprocess": ("moe_router",),
    "moe": ("moe", "moe_act", "moe_router", "shared_experts", "layernorm", "residual"),
}
"""Parts of a layer inside the graphs that Megatron names; a graph of no such name has all."""


def _is_captured(module: str, graphs: frozenset[str]) -> bool:
    return bool(graphs) and (
        not graphs & _CAPTURED.keys() or any(module in _CAPTURED.get(graph, ()) for graph in graphs)
    )


_EXCHANGE_LAUNCHES = 1.0
"""A collective is one launch more."""


@dataclass(slots=True)
class LayerPrice:
    """Time in ns of each pass, and of what they are made of (the parts sum to the passes).

    Parameters
    ----------
    pass_ns
        By pass.
    parts_ns
        By operator; exposed exchanges by axis and network; ``recompute``, ``host``, ``overlap slowdown``.
    weights, expert_weights
        Elements of the matrices that this rank holds: outside and inside the experts.
    matrices
        How many matrices that is.
    frozen
        Elements of matrices that are not trained.
    """

    pass_ns: dict[Pass, float] = field(default_factory=lambda: dict.fromkeys(Pass, 0.0))
    parts_ns: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    weights: int = 0
    expert_weights: int = 0
    matrices: int = 0
    frozen: int = 0

    @property
    def total_ns(self) -> float:
        """All passes."""
        return sum(self.pass_ns.values())

    @property
    def backward_ns(self) -> float:
        """Input and weight gradients."""
        return self.pass_ns[Pass.I] + self.pass_ns[Pass.W]


class LayerClock:
    """Prices the layers of one setup, with its GPU's kernels or those of another clock (a what-if)."""

    def __init__(self, setup: TrainingSetup, kernels: KernelClock | None = None) -> None:
        self.setup = setup
        self.clock = kernels or KernelClock.of(setup.cluster.gpu, setup.software, setup.precision)
        self.exchanges = ExchangeClock(setup, self.clock)
        self.groups = self.exchanges.groups

    def price(self, work: LayerWork) -> LayerPrice:
        """Price one layer's passes for one microbatch."""
        out = LayerPrice()
        launches = dict.fromkeys(Pass, 0.0)
        graphs, adapted = self.setup.software.cuda_graphs, self.setup.software.adapter_rank
        products: dict[tuple[str, Pass], list[float]] = {}
        for kernel in work.kernels:
            time = self.clock.time_ns(kernel)
            out.pass_ns[kernel.step] += time
            issued = kernel.launches * (_GRAPH_SHARE if _is_captured(kernel.module, graphs) else 1.0)
            launches[kernel.step] += issued
            out.parts_ns[kernel.name] += time
            if kernel.kind is not KernelKind.MEMORY:
                products.setdefault((kernel.module, kernel.step), []).append(time)
            if kernel.step is Pass.W and kernel.kind is not KernelKind.MEMORY:
                expert = kernel.kind is KernelKind.GROUPED or kernel.name.startswith("expert")
                self._hold(out, kernel.m * kernel.n * kernel.batch, kernel.batch, expert=expert)
            if adapted and kernel.step is Pass.F and kernel.kind in (KernelKind.GEMM, KernelKind.GROUPED):
                out.frozen += kernel.n * kernel.k * kernel.batch
            if kernel.step is Pass.F:
                launches[Pass.I] += issued * self._again(
                    out, kernel.module, time, is_product=kernel.kind in (KernelKind.GEMM, KernelKind.GROUPED)
                )
        for exchange in work.exchanges:
            again = self._exchange(out, exchange, products)
            launches[exchange.step] += _EXCHANGE_LAUNCHES
            launches[Pass.I] += _EXCHANGE_LAUNCHES * again
        self._wait_for_host(out, launches)
        return out

    @staticmethod
    def _hold(out: LayerPrice, elements: int, matrices: int, *, expert: bool) -> None:
        """Count matrices: a weight's gradient has its shape."""
        if expert:
            out.expert_weights += elements
        else:
            out.weights += elements
        out.matrices += matrices

    def _exchange(
        self, out: LayerPrice, exchange: Exchange, products: dict[tuple[str, Pass], list[float]]
    ) -> float:
        price = self.exchanges.price(exchange, self._beside(exchange, products))
        time = price.exposed_ns + price.slowdown_ns
        out.pass_ns[exchange.step] += time
        name = f"{exchange.axis} {self.exchanges.tier(exchange.axis)}"
        out.parts_ns[name] += price.exposed_ns
        if price.slowdown_ns:
            out.parts_ns["overlap slowdown"] += price.slowdown_ns
        return self._again(out, exchange.module, time) if exchange.step is Pass.F else 0.0

    @staticmethod
    def _beside(exchange: Exchange, products: dict[tuple[str, Pass], list[float]]) -> float:
        """Time of what an exchange may run beside.

        Gathers come before the first product of forward and the last one's input gradient, scatters after
        the last product of forward and beside the first one's weight gradient; what is gathered for a weight
        gradient comes beside the input gradient.
        """
        module, step = exchange.module, exchange.step
        if exchange.axis == "cp":
            return sum(products.get((module, step), ()))
        if exchange.axis == "ep":
            # Forward of one microbatch is woven with backward of another: four exchanges beside all products.
            return sum(map(sum, products.values())) / 4
        gather = exchange.collective == "all_gather"
        if step is Pass.F:
            times = products.get((module, Pass.F), ())
            return times[0 if gather else -1] if times else 0.0
        beside = Pass.W if step is Pass.I and not gather else Pass.I
        times = products.get((module, beside), ())
        return times[-1 if step is Pass.I and gather else 0] if times else 0.0

    def _again(self, out: LayerPrice, module: str, time: float, *, is_product: bool = False) -> float:
        """Add what backward computes again; returns the share of layers that do."""
        share = recomputed_share(self.setup.recompute, module, is_product=is_product)
        out.pass_ns[Pass.I] += time * share
        out.parts_ns["recompute"] += time * share
        return share

    def _wait_for_host(self, out: LayerPrice, launches: dict[Pass, float]) -> None:
        host_ns = self.clock.release.host_ns
        # The host launches I and W as one backward.
        backward = out.pass_ns[Pass.I] + out.pass_ns[Pass.W]
        late = {
            Pass.F: launches[Pass.F] * host_ns - out.pass_ns[Pass.F],
            Pass.I: (launches[Pass.I] + launches[Pass.W]) * host_ns - backward,
        }
        for step, time in late.items():
            if time > 0:
                out.pass_ns[step] += time
                out.parts_ns["host"] += time
