"""What the recipes of NVIDIA's frameworks do where a row says nothing: dispatchers, overlap, graphs, kernels.

Read in the public recipes and code named beside each; words of the row come first everywhere.
"""

from __future__ import annotations

from exactmap.sim.published.cells import integer, words
from exactmap.sim.published.row import Row

__all__ = [
    "captured_parts",
    "drops_tokens",
    "is_balanced",
    "overlaps_tensor",
    "sorts_in_one_kernel",
    "stores_scores",
    "usual_dispatcher",
]

_CAPTURABLE = frozenset({"attn", "mamba", "mlp", "moe", "moe_router", "moe_preprocess"})
"""Parts of layers that CUDA graphs name."""
_DROPPING = frozenset({"token_drop", "moe_capacity_factor=1.0", "pad_to_capacity"})
"""Words for experts that take a fixed number of tokens and drop the rest."""
_FIRST_FUSED_BACKWARD = "25.07"
_FIRST_FUSED_SORT = "25.04"
"""Releases of NeMo."""


def _is_blackwell(row: Row) -> bool:
    return "B" in row["gpu"].upper()


def drops_tokens(row: Row) -> bool:
    """Whether experts take a fixed number of tokens."""
    return bool(words(row) & _DROPPING)


def captured_parts(row: Row, family: str, graphs: str) -> frozenset[str]:
    """Parts in CUDA graphs; ``full``: all. `graphs` is what follows ``cuda_graph=``.

    Fixed shapes can be captured whole: recipes of Megatron-Bridge 25.09 do so on Blackwell, not on Hopper
    (scripts/performance/configs, `cuda_graphs`).
    """
    flags = words(row)
    parts = frozenset(graphs.replace("transformer_engine:", "").replace("local:", "").split("+")) - {""}
    parts |= {part for word in flags if "+" in word for part in word.split("+")} & _CAPTURABLE
    if "full_iteration" in graphs:
        return frozenset({"full"})
    if not parts and flags & {"cuda_graph", "cuda_graphs"}:
        return frozenset({"full"} if family == "nemo" else {"attn"})
    if not graphs and family == "megatron-bridge" and drops_tokens(row) and _is_blackwell(row):
        return frozenset({"full"})
    return parts


def overlaps_tensor(row: Row, family: str) -> bool:
    """Whether tensor-parallel exchanges are overlapped with their products.

    NeMo's recipes do, and Megatron-Bridge's for dense models; those for experts leave it off (Qwen3-235B on
    H100, Nemotron 3 Super, DeepSeek-V3).
    """
    if integer(row, "tp", 1) == 1 or "no_tp_comm_overlap" in words(row):
        return False
    return family == "nemo" or (family == "megatron-bridge" and not row["n_experts"])


def is_balanced(row: Row, family: str) -> bool:
    """Whether routing is forced to be even: Megatron-Bridge's benchmarks say so, else it is the router's."""
    flags = words(row)
    if family == "megatron-bridge" and not drops_tokens(row):
        return "moe_forced_balanced" in flags
    return "natural_routing" not in flags


def stores_scores(row: Row, family: str) -> bool:
    """Whether latent attention ran unfused: cuDNN had no backward for its heads on Blackwell at first.

    That NeMo's recipes compute `core_attn` again there, and not on Hopper, shows it.
    """
    early = bool(row["release"]) and row["release"] < _FIRST_FUSED_BACKWARD
    return family == "nemo" and early and row["head_dim"].upper() == "MLA" and _is_blackwell(row)


def sorts_in_one_kernel(row: Row, family: str) -> bool:
    """Whether tokens are sorted by expert by Transformer Engine's kernel (`moe_permute_fusion`)."""
    early = bool(row["release"]) and row["release"] < _FIRST_FUSED_SORT
    return not (family == "nemo" and early)


def usual_dispatcher(row: Row, family: str) -> str:
    """Return what recipes take for experts over several hosts where nothing is said.

    DeepEP on 8-GPU hosts and HybridEP in racks where experts lie on several hosts; all-to-all elsewhere, and
    for buffers of a fixed size: the others refuse those (Megatron-Core, transformer/moe/token_dispatcher.py).
    """
    if family == "hai-llm":
        return "deepep"
    domain = integer(row, "nvlink_domain", 8)
    if drops_tokens(row) or any(word.startswith("etp=") for word in words(row)):
        # Where the recipe is known in full and names no dispatcher, it is Megatron-Core's default.
        return "all_to_all"
    if family == "megatron-bridge" and integer(row, "ep", 1) > min(domain, 8):
        return "hybridep" if domain > 8 else "deepep"
    return "all_to_all"
