"""What context parallelism moves in an attention layer: keys and values round a ring, or heads for tokens.

``ring`` (Ring Attention, arXiv:2310.01889; Transformer Engine's ``p2p``): a rank attends to one block of keys
and values after the other while the next block arrives; backward sends the blocks round again, and their
gradients with them. ``all_to_all`` (DeepSpeed Ulysses, arXiv:2309.14509): queries, keys and values are
exchanged so that a rank has all tokens of some heads, and the output is exchanged back. ``all_gather``: keys
and values are gathered before attention and their gradients scattered after it.
"""

from __future__ import annotations

from typing import NamedTuple

from exactmap.sim.workload.operators import Pass

__all__ = ["ContextExchange", "context_exchanges"]


class ContextExchange(NamedTuple):
    """One exchange: pass, collective, bytes of the full buffer (``ring``: of one hop to the neighbour)."""

    step: Pass
    collective: str
    num_bytes: float


def context_exchanges(
    how: str, num_ranks: int, query_bytes: float, kv_bytes: float
) -> tuple[ContextExchange, ...]:
    """Exchanges of one attention layer.

    Parameters
    ----------
    how
        `exactmap.sim.workload.training.Split.cp_exchange`.
    num_ranks
        Context-parallel ranks.
    query_bytes, kv_bytes
        Queries (or outputs) of one rank's own tokens; its keys and values together.
    """
    if num_ranks == 1:
        return ()
    if how == "all_to_all":
        both = query_bytes + kv_bytes
        return tuple(
            ContextExchange(step, "all_to_all", size)
            for step in (Pass.F, Pass.I)
            for size in (both, query_bytes)
        )
    if how == "all_gather":
        whole = num_ranks * kv_bytes
        return (
            ContextExchange(Pass.F, "all_gather", whole),
            ContextExchange(Pass.I, "all_gather", whole),
            ContextExchange(Pass.I, "reduce_scatter", whole),
        )
    return (ContextExchange(Pass.F, "ring", kv_bytes), ContextExchange(Pass.I, "ring", 2 * kv_bytes))
