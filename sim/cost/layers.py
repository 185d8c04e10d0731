"""Passes of one layer on one rank: its kernels, its exchanges, and the host that launches them.

F, I and W are priced apart, so that a schedule may move W; what is computed again belongs to I. A pass takes
what its kernels and exposed exchanges take, or what the host needs to launch them, whichever is longer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exactmap.sim.cost.groups import collective_ns, strided_group
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.workload.layer_work import LayerWork
from exactmap.sim.workload.operators import Pass

__all__ = ["LayerClock", "LayerPrice"]

_GRAPH_SHARE = 0.2
"""Host time per launch that CUDA graphs leave."""


@dataclass(slots=True)
class LayerPrice:
    """Time in ns of each pass, and of what they are made of (the parts sum to the passes)."""

    pass_ns: dict[Pass, float] = field(default_factory=lambda: dict.fromkeys(Pass, 0.0))
    parts_ns: Counter[str] = field(default_factory=Counter)

    @property
    def total_ns(self) -> float:
        """All passes."""
        return sum(self.pass_ns.values())


class LayerClock:
    """Prices the layers of one setup."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup
        self.clock = KernelClock.of(setup.cluster.gpu, setup.software, setup.precision)
        split = setup.split
        self.groups = {
            "tp": strided_group(setup.cluster, split.tp, 1),
            "cp": strided_group(setup.cluster, split.cp, split.tp),
            "ep": strided_group(setup.cluster, split.ep, split.etp),
        }

    def price(self, work: LayerWork) -> LayerPrice:
        """Price one layer's passes for one microbatch."""
        out = LayerPrice()
        launches = dict.fromkeys(Pass, 0.0)
        for kernel in work.kernels:
            time = self.clock.time_ns(kernel)
            out.pass_ns[kernel.step] += time
            launches[kernel.step] += kernel.launches
            out.parts_ns[kernel.name] += time
            if kernel.step is Pass.F:
                launches[Pass.I] += kernel.launches * self._again(out, kernel.module, time)
        for exchange in work.exchanges:
            time = self.exchange_ns(exchange.axis, exchange.collective, exchange.num_bytes)
            out.pass_ns[exchange.step] += time
            out.parts_ns[f"{exchange.axis} communication"] += time
            if exchange.step is Pass.F:
                self._again(out, exchange.module, time)
        self._wait_for_host(out, launches)
        return out

    def exchange_ns(self, axis: str, collective: str, num_bytes: float) -> float:
        """Exposed time of a collective inside a layer."""
        time = collective_ns(self.setup.cluster, collective, self.groups[axis], num_bytes)
        if axis == "tp" and self.setup.software.overlap_tp:
            time *= self.clock.release.exposed_tp
        return time

    def _again(self, out: LayerPrice, module: str, time: float) -> float:
        """Add what backward computes again; returns the share of layers that do."""
        recompute = self.setup.recompute
        if recompute.kind == "none" or module == "head":
            return 0.0
        if recompute.kind == "modules" and module not in recompute.modules:
            return 0.0
        out.pass_ns[Pass.I] += time * recompute.share
        out.parts_ns["recompute"] += time * recompute.share
        return recompute.share

    def _wait_for_host(self, out: LayerPrice, launches: dict[Pass, float]) -> None:
        graphs = bool(self.setup.software.cuda_graphs)
        host_ns = self.clock.release.host_ns * (_GRAPH_SHARE if graphs else 1.0)
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
