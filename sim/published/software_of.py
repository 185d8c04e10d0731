"""The software of a row: framework, release, and what its words switch on or off."""

from __future__ import annotations

from exactmap.sim.published.cells import decimal, integer, is_on, words
from exactmap.sim.published.recipe_defaults import (
    captured_parts,
    drops_tokens,
    is_balanced,
    overlaps_tensor,
    sorts_in_one_kernel,
    stores_scores,
    usual_dispatcher,
)
from exactmap.sim.published.row import Row
from exactmap.sim.workload.training import Precision, Recompute, Software

__all__ = ["layout_of", "precision_of", "recompute_of", "software_of", "zero_of"]

_FAMILIES = (
    ("megatron-deepspeed", "megatron-deepspeed"),
    ("deepspeed/megatron", "megatron-deepspeed"),
    ("megatron-bridge", "megatron-bridge"),
    ("nemo", "nemo"),
    ("llm-foundry", "composer"),
    ("composer", "composer"),
    ("mosaic", "composer"),
    ("torchtitan", "torchtitan"),
    ("maxtext", "jax"),
    ("pax", "pax"),
    ("jax", "jax"),
    ("t5x", "jax"),
    ("axlearn", "jax"),
    ("deepspeed", "deepspeed"),
    ("sagemaker", "deepspeed"),
    ("metaseq", "composer"),
    ("meta", "composer"),
    ("llm.c", "llm.c"),
    ("deepseek", "hai-llm"),
    ("megatron", "megatron"),
    ("fsdp", "composer"),
    ("pytorch", "torchtitan"),
)
_SCALINGS = (("MX", "mx"), ("BLOCK", "block"), ("ROW", "row"))
_OVERLAPS = ("nemo", "megatron-bridge", "torchtitan", "composer", "jax", "pax", "hai-llm")
"""Frameworks whose defaults hide data-parallel communication."""
_MODULES = frozenset(
    {"core_attn", "layernorm", "moe_act", "mla_up_proj", "mlp", "moe", "shared_experts", "attn"}
)


_SAMPLE_TOKENS = 256
"""Of a sample of SQuAD, context and answer: recipes for LoRA pack sequences of them (NeMo,
llm/gpt/data/squad.py; Megatron-Bridge, recipes/common.py)."""
_ADAPTER_RANK = 16
"""Of recipes for LoRA in Megatron-Bridge; NeMo's have 16 or 32, and hardly any time depends on it."""


def _has(flags: frozenset[str], *names: str) -> bool:
    return any(name in flags for name in names)


def _after(flags: frozenset[str], name: str) -> str:
    """What follows ``name=`` in a word; empty: no such word."""
    return next((word[len(name) + 1 :] for word in sorted(flags) if word.startswith(f"{name}=")), "")


def software_of(row: Row, assumed: list[str]) -> Software:
    """Read what runs the step."""
    framework, flags = row["framework"].lower(), words(row)
    family = next((name for start, name in _FAMILIES if framework.startswith(start)), "")
    if not family:
        family = "megatron-bridge"
        assumed.append(f"framework={family}")
    release = row["release"]
    vpp = integer(row, "vpp", 1)
    unfused = family == "megatron-deepspeed" or (
        family in ("megatron", "deepspeed")
        and (release[:4] in ("2019", "2020", "2021", "2022") or not release)
    )
    mega = family in ("nemo", "megatron-bridge")
    dispatcher = _after(flags, "dispatcher") or usual_dispatcher(row, family)
    offloaded = _after(flags, "cpu_activation_offload_layers")
    return Software(
        family,
        release,
        fused_attention=not unfused,
        stored_scores=stores_scores(row, family),
        compiled="torch.compile" in flags or family in ("jax", "pax"),
        overlap_grad=_has(flags, "overlap_grad_sync", "overlap_grad_reduce")
        or (family in _OVERLAPS and not _has(flags, "no_gradient_bucketing", "no_overlap")),
        overlap_param=_has(flags, "overlap_param_sync", "overlap_param_gather") or family in _OVERLAPS,
        overlap_tp=_has(flags, "tp_comm_overlap", "async_tp") or overlaps_tensor(row, family),
        overlap_p2p=vpp > 1 and ("p2p_overlap" in flags or (mega and "no_p2p_overlap" not in flags)),
        overlap_ep=_has(flags, "ep_a2a_overlap", "ep_a2a_overlap_1f1b"),
        cuda_graphs=captured_parts(row, family, _after(flags, "cuda_graph")),
        dispatcher={"alltoall": "all_to_all", "allgather": "all_gather"}.get(dispatcher, dispatcher),
        grouped_gemm="no_grouped_gemm" not in flags,
        capacity_factor=1.0 if drops_tokens(row) else 0.0,
        balanced=is_balanced(row, family),
        offloaded_layers=decimal(offloaded),
        optimizer_offload=next(
            (
                min(1.0, decimal(w[:-1]) / 100)
                for w in sorted(flags)
                if w[:-1].isdecimal() and w.endswith("%")
            ),
            0.0,
        )
        if "offload" in flags
        else 0.0,
        adapter_rank=_ADAPTER_RANK if _has(flags, "lora", "task=lora") else 0,
        packed_tokens=_SAMPLE_TOKENS if _has(flags, "lora", "task=lora") else 0,
        fused_permute=sorts_in_one_kernel(row, family),
        flags=flags,
    )


def layout_of(row: Row) -> str:
    """Stated layout of the stages; empty if there is none."""
    for word in row["flags"].split():
        if word.startswith("pp_layout="):
            return word.removeprefix("pp_layout=")
    return ""


def zero_of(row: Row) -> tuple[int, int]:
    """ZeRO stage, and over how many ranks parameters or optimizer are sharded (0: all data ranks)."""
    flags, text = words(row), row["fsdp"].lower().removesuffix(".0")
    digits = "".join(letter if letter.isdecimal() else " " for letter in text).split()
    shards = decimal(digits[-1]) if digits and "zero-" not in text else 0
    if "zero-3" in text or "zero-3" in row["framework"].lower() or "sharding groups" in text:
        return 3, shards
    if "zero-2" in text or "shard_grad_op" in flags:
        return 2, shards
    if "zero-1" in text:
        return 1, 0
    if "fsdp+dp" in flags:
        return 3, 0
    if decimal(text) > 1:
        return 3, decimal(text)
    # torchtitan shards over context ranks as well: one data rank is not one shard there.
    whole = text == "1" and integer(row, "cp", 1) == 1
    if row["framework"].lower().startswith(("torchtitan", "maxtext", "pax")) and not whole:
        return 3, 0
    return (1, 0) if is_on(row, "dist_opt") or "dist_opt" in flags else (0, 0)


def precision_of(row: Row, zero: int) -> Precision:
    """Number formats by the source's word for them."""
    text, flags = row["precision"].upper(), words(row)
    family = row["framework"].lower()
    mega = family.startswith(("nemo", "megatron-bridge"))
    # Recipes of NeMo and Megatron-Bridge reduce gradients in 16 bits.
    reduce_bytes = 2.0 if "grad_reduce_bf16" in flags or mega else 4.0
    if zero == 3:
        reduce_bytes = 4.0 if family.startswith("torchtitan") else 2.0
    narrow = {"fp8_all_gather"} & flags
    if "FP4" in text:
        return Precision(
            "nvfp4", "fp4", "nv", grad_bytes=reduce_bytes if mega else 4.0, reduce_bytes=reduce_bytes
        )
    if "FP8" in text:
        scaling = next((name for word, name in _SCALINGS if word in text), "tensor")
        wide = "AMP" in text
        return Precision(
            "fp8",
            "fp8",
            scaling,
            param_bytes=4 if wide else 2,
            grad_bytes=reduce_bytes if mega else 4.0,
            reduce_bytes=reduce_bytes,
            master_bytes=0 if wide else 4,
            gather_bytes=1 if narrow else 2,
            autocast=wide,
        )
    if text.startswith(("FP32", "TF32")):
        return Precision("fp32", "fp32", param_bytes=4, master_bytes=0, gather_bytes=4)
    if text.startswith("FP16"):
        # Megatron-LM accumulates in 32 bits; Megatron-DeepSpeed keeps and reduces 16.
        grad = 4.0 if family.startswith("megatron-lm") else 2.0
        return Precision("fp16", "fp16", grad_bytes=grad, reduce_bytes=grad)
    if "AMP" in text:
        return Precision("bf16", "bf16", param_bytes=4, reduce_bytes=4, master_bytes=0, autocast=True)
    if "PURE" in text:
        return Precision("bf16", "bf16", grad_bytes=2, reduce_bytes=2, master_bytes=0, moment_bytes=2)
    # The buffer that gradients are accumulated in is the one that is reduced.
    return Precision(grad_bytes=reduce_bytes if mega else 4.0, reduce_bytes=reduce_bytes)


def recompute_of(row: Row, layers: int, assumed: list[str]) -> Recompute:
    """What backward computes again, by the source's words."""
    text = row["recompute"].lower()
    family = row["framework"].lower()
    jax = family.startswith(("maxtext", "pax", "jax"))
    if text.startswith("full-layer"):
        digits = "".join(letter if letter.isdecimal() else " " for letter in text).split()
        chunk = max(1, layers // (integer(row, "pp", 1) * integer(row, "vpp", 1)))
        return Recompute("full", share=min(1.0, decimal(digits[0]) / chunk) if digits else 1.0)
    if text.startswith("full"):
        return Recompute("full")
    if text.startswith("modules:"):
        return Recompute("modules", frozenset(text.removeprefix("modules:").split("+")) & _MODULES)
    if "rmsnorm" in text:
        return Recompute("modules", frozenset({"layernorm", "mla_up_proj"}))
    if "sac" in text:
        return Recompute("modules", frozenset({"save_half_products"}))
    if "qkv_out_proj" in text:
        return Recompute("modules", frozenset({"mlp", "mlp_act", "layernorm", "residual"}))
    if any(word in text for word in ("save_", "minimal", "linear outputs", "dots")):
        return Recompute("modules", frozenset({"save_products"}))
    if "core" in text or text.startswith("selective"):
        return Recompute("modules", frozenset({"core_attn"}))
    if jax and "none" not in text:
        # NVIDIA's recipes for MaxText keep what products give (``minimal``); TPU recipes say what they do.
        assumed.append("recompute=save_products")
        return Recompute("modules", frozenset({"save_products"}))
    if not text.startswith("none"):
        assumed.append("recompute=none")
    return Recompute()
