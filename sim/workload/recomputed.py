"""Which share of a layer's module backward computes again under a policy of recompute."""

from __future__ import annotations

from exactmap.sim.workload.training import Recompute

__all__ = ["recomputed_share"]

_INSIDE = {"moe_act": "moe", "moe_router": "moe", "shared_experts": "moe", "mlp_act": "mlp"}
"""Modules inside another: who computes the whole again computes them again."""


def recomputed_share(recompute: Recompute, module: str, *, is_product: bool = False) -> float:
    """Share of the layers whose kernels of a module run once more before backward.

    Parameters
    ----------
    recompute
        The policy.
    module
        Part of the layer that a kernel belongs to; the head is never computed again.
    is_product
        Whether the kernel is a product with a weight.

    Examples
    --------
    >>> policy = Recompute("modules", frozenset({"core_attn"}))
    >>> recomputed_share(policy, "core_attn"), recomputed_share(policy, "mlp", is_product=True)
    (1.0, 0.0)
    """
    if recompute.kind == "none" or module == "head":
        return 0.0
    share = recompute.share
    if recompute.kind == "modules" and not {module, _INSIDE.get(module, module)} & recompute.modules:
        if "save_products" in recompute.modules:
            share *= 0.0 if is_product else 1.0
        elif "save_half_products" in recompute.modules:
            # Every other product and attention are kept (torchtitan's selective checkpointing).
            share *= 0.5 if is_product else 0.0 if module == "core_attn" else 1.0
        else:
            return 0.0
    return share
