"""What a collective inside a layer adds to its pass: all of it, or what overlap leaves.

Tensor parallelism overlapped with its products (Transformer Engine's userbuffers, PyTorch's async TP) cuts a
product into as many pieces as there are ranks, and sends or receives one while the next is computed: the
last piece that is scattered has nothing to hide behind, what outlasts the product is exposed, and product and
exchange slow each other down. Without that, Megatron since 2022 still runs two exchanges of backward whole
beside a product (arXiv:2205.05198, 4.2.2): what is gathered for a weight gradient beside the input
gradient's, and the sum of an input gradient beside the weight gradient's. Context parallelism in a ring
sends the next block of keys and values while attention works on this one. An expert exchange beside another
microbatch's passes is hidden as far as those are long.
"""

from __future__ import annotations

from typing import NamedTuple

from exactmap.sim.cost.expert_exchange import expert_exchange_ns
from exactmap.sim.cost.groups import collective_ns, rank_groups
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.cost.spread import largest_of
from exactmap.sim.workload.layer_work import Exchange
from exactmap.sim.workload.operators import Pass
from exactmap.topology.collectives import hop_time

__all__ = ["ExchangeClock", "Exposed"]


_MULTIPROCESSORS = {"deepep": 24, "hybridep": 32, "all_to_all": 32}
"""Multiprocessors that an exchange of experts holds: DeepEP's default; what Megatron-Bridge's recipes give
HybridEP (scripts/performance/utils/overrides.py); NCCL's channels of point-to-point exchanges."""
_HAS = {"H100": 132, "H200": 132, "H800": 132, "A100-80G": 108, "A100-40G": 108}
_HAS_USUALLY = 148
"""Multiprocessors of a GPU: of Hopper and Ampere; of Blackwell."""


class Exposed(NamedTuple):
    """Of an exchange: all of it, what its pass waits for, what it slows the kernels beside it."""

    total_ns: float
    exposed_ns: float
    slowdown_ns: float = 0.0


def _whole_beside(exchange: Exchange) -> bool:
    """Whether an exchange of backward has a product that does not depend on it."""
    return exchange.step is Pass.W or (exchange.step is Pass.I and exchange.collective != "all_gather")


class ExchangeClock:
    """Prices the exchanges of one setup."""

    def __init__(self, setup: TrainingSetup, clock: KernelClock) -> None:
        self.setup = setup
        self.clock = clock
        self.groups = rank_groups(setup.cluster, setup.split)
        software = setup.software
        self.woven = software.overlap_ep or setup.schedule.lower().startswith("dualpipe")
        self.beside_products = software.family in ("nemo", "megatron-bridge") or (
            software.family == "megatron" and not software.release.startswith("2021")
        )

    def tier(self, axis: str) -> str:
        """Furthest network that an axis crosses, as parts of a step name it."""
        return self.groups[axis].tier.value

    def price(self, exchange: Exchange, beside_ns: float) -> Exposed:
        """Price an exchange.

        Parameters
        ----------
        exchange
            What is exchanged.
        beside_ns
            Time of the kernels that it may run beside: its product, attention, or another microbatch's pass.
        """
        if exchange.collective == "ring":
            return self._ring(exchange, beside_ns)
        software = self.setup.software
        group = self.groups[exchange.axis]
        if exchange.collective == "experts":
            time = expert_exchange_ns(
                self.setup.cluster,
                group,
                exchange.num_bytes,
                exchange.copies,
                software.dispatcher,
                most_hosts=exchange.most_hosts,
                row_bytes=exchange.row_bytes,
            )
        else:
            time = collective_ns(self.setup.cluster, exchange.collective, group, exchange.num_bytes)
        if exchange.axis in ("tp", "etp"):
            # All wait for the rank that comes last.
            time += self.clock.release.skew_ns * largest_of(group.num_members)
        # The dispatcher's gathers and scatters between the ranks of an expert have nothing beside them.
        if exchange.axis == "tp":
            if software.overlap_tp and exchange.collective != "all_reduce":
                return self._pipelined(time, beside_ns, gathers=exchange.collective == "all_gather")
            if self.beside_products and _whole_beside(exchange):
                return self._beside(time, beside_ns)
        if exchange.axis == "ep" and self.woven:
            return self._beside(time, beside_ns, self._taken())
        return Exposed(time, time)

    def _pipelined(self, time: float, product_ns: float, *, gathers: bool) -> Exposed:
        pieces = self.setup.split.tp
        share = 1.0 - 1.0 / pieces
        # A rank has its own piece of what is gathered at once, and computes on it while the rest comes.
        hidden = min(time, product_ns * share) if gathers else min(time * share, product_ns)
        return Exposed(time, time - hidden, hidden * self.clock.release.exposed_tp)

    def _beside(self, time: float, other_ns: float, slowdown: float | None = None) -> Exposed:
        hidden = min(time, other_ns)
        if slowdown is None:
            slowdown = self.clock.hardware.overlap_slowdown
        return Exposed(time, time - hidden, hidden * slowdown)

    def _taken(self) -> float:
        """Growth of compute while an exchange of experts holds multiprocessors beside it."""
        gpu = self.setup.cluster.gpu
        taken = _MULTIPROCESSORS.get(self.setup.software.dispatcher, _MULTIPROCESSORS["all_to_all"])
        share = taken / _HAS.get(gpu.kernels or gpu.curves, _HAS_USUALLY)
        return share / (1.0 - share)

    def _ring(self, exchange: Exchange, attention_ns: float) -> Exposed:
        shape, cluster = self.groups[exchange.axis], self.setup.cluster
        hop = hop_time(cluster, shape.tier, int(exchange.num_bytes), shape.fabric_tier)
        each = float(hop.wire_ns + hop.lat_ns)
        steps = shape.num_members - 1
        hidden = steps * min(each, attention_ns / shape.num_members)
        return Exposed(steps * each, steps * each - hidden, hidden * self.clock.hardware.overlap_slowdown)
