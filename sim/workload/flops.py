"""FLOPs of a token, by operator and pass, from the kernels that steps are priced with.

*Executed* (hardware) FLOPs are those of the kernels: backward of fused attention computes the scores again
and does 2.5 times its forward, backward of a state-space scan three times; a policy of recompute adds
forwards. *Model* FLOPs are what the mathematics needs: backward twice forward, nothing again.

Causal attention counts the half of the square below the diagonal, less what lies outside a window. Attention
without fused kernels (`Software.fused_attention` off) computes the whole square and masks it, and is counted
so in both: that is how Megatron (arXiv:2104.04473), Korthikanti et al. (arXiv:2205.05198) and PaLM
(arXiv:2204.02311, appendix B) count. What has no products (norms, activations, the loss) counts nothing.

Routing is taken to be even and nothing is dropped. A token's share of experts is exact: the microbatch is as
large as it must be for all experts to see equally many tokens.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from math import gcd

from exactmap.sim.workload.kernel import Kernel, KernelKind, LayerWork
from exactmap.sim.workload.layer_work import head_work, layer_work, prediction_work
from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.recomputed import recomputed_share
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split

__all__ = ["OperatorFlop", "TokenFlop", "kernel_model_flop", "token_flop"]

_BACKWARD = 2.0
"""Of forward: a product has an input gradient and a weight gradient, or gradients of both its inputs."""
_FUSED = (KernelKind.ATTENTION, KernelKind.SCAN)
"""Kernels whose backward computes what forward did not store."""
_PRODUCTS = (KernelKind.GEMM, KernelKind.GROUPED)


@dataclass(slots=True)
class OperatorFlop:
    """FLOPs of one operator for a token, over all layers.

    Parameters
    ----------
    name
        As the parts of a step have it.
    pass_flop
        Executed, by pass.
    again
        Executed once more by backward under the policy of recompute.
    model
        What the mathematics needs of all passes.
    """

    name: str
    pass_flop: dict[Pass, float] = field(default_factory=lambda: dict.fromkeys(Pass, 0.0))
    again: float = 0.0
    model: float = 0.0

    @property
    def executed(self) -> float:
        """All that is executed."""
        return sum(self.pass_flop.values()) + self.again


@dataclass(frozen=True, slots=True)
class TokenFlop:
    """FLOPs of a token, forward and backward, by operator; the largest first."""

    operators: tuple[OperatorFlop, ...]

    @property
    def model(self) -> float:
        """What the mathematics needs."""
        return sum(each.model for each in self.operators)

    @property
    def executed(self) -> float:
        """What the hardware executes."""
        return sum(each.executed for each in self.operators)

    def pass_flop(self, step: Pass) -> float:
        """Executed in one pass; what is computed again belongs to I."""
        again = sum(each.again for each in self.operators) if step is Pass.I else 0.0
        return sum(each.pass_flop[step] for each in self.operators) + again


def kernel_model_flop(kernel: Kernel) -> float:
    """Model FLOPs of a kernel; those of fused kernels all belong to their forward."""
    if kernel.kind not in _FUSED:
        return kernel.flop
    return (1.0 + _BACKWARD) * kernel.flop if kernel.step is Pass.F else 0.0


def token_flop(
    model: ModelConfig, seq: int, *, recompute: Recompute | None = None, software: Software | None = None
) -> TokenFlop:
    """FLOPs of a token of a sequence of `seq`, forward and backward.

    Parameters
    ----------
    model
        The model.
    seq
        Tokens of a sequence.
    recompute
        What backward computes again; default: nothing.
    software
        What runs it, as far as FLOPs depend on it: fused attention, frozen weights. Default: fused.

    Examples
    --------
    >>> from exactmap.sim.workload.presets import find_preset
    >>> flop = token_flop(find_preset("deepseek-v2-lite"), 4096)
    >>> round(flop.model / 1e9, 1), round(flop.executed / 1e9, 1)
    (16.4, 16.7)
    """
    policy = recompute or Recompute()
    even = replace(software or Software(), balanced=True, capacity_factor=0.0)
    sequences = 1
    if model.experts is not None:
        num = model.experts.num_experts
        sequences = num // gcd(num, seq * model.experts.top_k)
    args = (Split(), Batch(seq, sequences, 1), Precision(), even)
    kinds = model.layer_kinds()
    works: list[tuple[LayerWork, int]] = [
        (layer_work(model, kind, *args), count) for kind, count in Counter(kinds).items()
    ]
    if model.mtp_layers:
        works += [(work, model.mtp_layers) for work in prediction_work(model, *args)]
    works.append((head_work(model, *args), 1 + model.mtp_layers))
    found: dict[str, OperatorFlop] = {}
    for work, count in works:
        for kernel in work.kernels:
            if kernel.flop:
                _add(found, kernel, count / (seq * sequences), policy)
    return TokenFlop(tuple(sorted(found.values(), key=lambda each: (-each.executed, each.name))))


def _add(found: dict[str, OperatorFlop], kernel: Kernel, times: float, policy: Recompute) -> None:
    entry = found.setdefault(kernel.name, OperatorFlop(kernel.name))
    entry.pass_flop[kernel.step] += times * kernel.flop
    entry.model += times * kernel_model_flop(kernel)
    if kernel.step is Pass.F:
        share = recomputed_share(policy, kernel.module, is_product=kernel.kind in _PRODUCTS)
        entry.again += share * times * kernel.flop
