"""Families with a mixture of experts in every layer, in every n-th, or behind some dense ones."""

from __future__ import annotations

from typing import Any

from exactmap.sim.workload.huggingface.decoder import decoder_fields, finish, window_fields
from exactmap.sim.workload.huggingface.dense import qwen_window
from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.model import Experts

__all__ = [
    "read_glm4_moe",
    "read_gpt_oss",
    "read_grok",
    "read_llama4",
    "read_mixtral",
    "read_qwen2_moe",
    "read_qwen3_moe",
]

_CHUNK = 8192
"""Tokens of a chunk of Llama 4's attention where the file does not say."""


def _experts(keys: Keys, count: str, *, ffn: str = "moe_intermediate_size", **extra: int) -> Experts:
    """The experts' own sizes; a count that cannot be is reported by the model."""
    return Experts(keys.integer(count), keys.integer("num_experts_per_tok"), keys.integer(ffn), **extra)


def read_mixtral(keys: Keys, name: str) -> ImportedModel:
    """Mixtral: experts as wide as a dense MLP would be."""
    experts = _experts(keys, "num_local_experts", ffn="intermediate_size")
    return finish(keys, name, decoder_fields(keys, experts=experts) | window_fields(keys))


def read_grok(keys: Keys, name: str) -> ImportedModel:
    """Grok-1, as converted from its release: tied, capped logits, norms on both sides."""
    keys.leave_out("norms after attention and MLP", "caps and factors of logits")
    experts = _experts(keys, "num_experts", ffn="intermediate_size")
    fields = decoder_fields(keys, activations=("gelu",), experts=experts)
    return finish(keys, name, fields)


def _qwen_experts(keys: Keys, shared_ffn: int = 0) -> Experts:
    every = keys.integer("decoder_sparse_step", 1)
    dense = keys.document.get("mlp_only_layers")
    first = 0
    if isinstance(dense, list) and dense:
        first = len(dense)
        if sorted(map(str, dense)) != sorted(map(str, range(first))):
            keys.fail("mlp_only_layers", "dense layers elsewhere than in front", dense, "[0, 1, ...]")
    return _experts(keys, "num_experts", every=every, first_dense=first, shared_ffn=shared_ffn)


def read_qwen2_moe(keys: Keys, name: str) -> ImportedModel:
    """Qwen 2 with experts: a shared expert behind a gate of its own."""
    keys.leave_out("biases of queries, keys and values", "gate of the shared expert")
    experts = _qwen_experts(keys, shared_ffn=keys.integer("shared_expert_intermediate_size"))
    return finish(keys, name, decoder_fields(keys, experts=experts) | qwen_window(keys))


def read_qwen3_moe(keys: Keys, name: str) -> ImportedModel:
    """Qwen 3 with experts."""
    keys.leave_out("norms of queries and keys")
    return finish(keys, name, decoder_fields(keys, experts=_qwen_experts(keys)) | qwen_window(keys))


def read_glm4_moe(keys: Keys, name: str) -> ImportedModel:
    """GLM-4.5: experts behind dense layers, one of them shared."""
    ffn = keys.integer("moe_intermediate_size")
    experts = _experts(
        keys,
        "n_routed_experts",
        shared_ffn=ffn * keys.integer("n_shared_experts", 0, least=0),
        first_dense=keys.integer("first_k_dense_replace", 0, least=0),
    )
    mtp = keys.integer("num_nextn_predict_layers", 0, least=0)
    return finish(keys, name, decoder_fields(keys, experts=experts, mtp_layers=mtp))


def read_gpt_oss(keys: Keys, name: str) -> ImportedModel:
    """GPT-OSS: clamped gates, sinks, a window in every other layer."""
    keys.leave_out("sinks of attention", "biases of experts and router")
    experts = _experts(keys, "num_local_experts", ffn="intermediate_size")
    fields = decoder_fields(keys, experts=experts, clamped=True)
    return finish(keys, name, fields | window_fields(keys, default_every=2))


def read_llama4(keys: Keys, name: str) -> ImportedModel:
    """Llama 4, text: a shared expert beside one routed; attention in chunks.

    Chunks of attention are no window: a token sees what lies before it in its chunk. Up to one chunk both are
    plain causal attention, so the model is read with as many positions.
    """
    keys.leave_out("scales of attention by position")
    inner = keys.integer("intermediate_size")
    every = keys.integer("interleave_moe_layer_step", 1)
    experts = _experts(keys, "num_local_experts", ffn="intermediate_size", shared_ffn=inner, every=every)
    dense = keys.integer("intermediate_size_mlp", inner)
    fields: dict[str, Any] = decoder_fields(keys, experts=experts, ffn=dense)
    chunk = keys.integer("attention_chunk_size", _CHUNK)
    if chunk < fields["positions"]:
        keys.note(f"attention works in chunks of {chunk} tokens: longer sequences cannot be priced")
        fields["positions"] = chunk
    return finish(keys, name, fields)
