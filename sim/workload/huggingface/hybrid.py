"""Nemotron-H and Nemotron 3: state-space, attention, MLP and expert layers in a written order."""

from __future__ import annotations

from typing import Any

from exactmap.sim.workload.huggingface.decoder import decoder_fields, finish
from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.model import Experts, StateSpace

__all__ = ["read_nemotron_h"]

_LETTERS = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}


def read_nemotron_h(keys: Keys, name: str) -> ImportedModel:
    """A hybrid model; its attention has no positions, which costs less than it is priced with here."""
    pattern = _pattern(keys)
    extra: dict[str, Any] = {
        "gated": False,
        "pattern": pattern,
        "norm_eps": keys.number("layer_norm_epsilon", keys.number("rms_norm_eps", 1e-5)),
        "layers": keys.integer("num_hidden_layers", len(pattern) or None),
    }
    if keys.has("num_nextn_predict_layers"):
        extra |= {
            "mtp_layers": keys.integer("num_nextn_predict_layers"),
            "mtp_pattern": keys.text("mtp_hybrid_override_pattern"),
            "mtp_repeated": True,
        }
    if "head_dim" not in keys.document:
        extra["head_dim"] = keys.integer("attention_head_dim", 128)
    if "M" in pattern:
        extra["state_space"] = StateSpace(
            keys.integer("mamba_num_heads"),
            keys.integer("mamba_head_dim"),
            keys.integer("ssm_state_size"),
            keys.integer("n_groups"),
            keys.integer("conv_kernel", 4),
        )
    if "E" in pattern:
        ffn = keys.integer("moe_intermediate_size")
        shared = keys.integer("moe_shared_expert_intermediate_size", ffn)
        extra["experts"] = Experts(
            keys.integer("n_routed_experts"),
            keys.integer("num_experts_per_tok"),
            ffn,
            shared_ffn=shared * keys.integer("n_shared_experts", 1, least=0),
            latent=keys.integer("moe_latent_size", 0, least=0),
        )
        if "-" not in pattern:
            # The width of dense layers, of which there are none, may be left out.
            extra["ffn"] = keys.integer("intermediate_size", ffn)
    keys.note("attention has no positions here; they are priced all the same, as next to nothing")
    fields = decoder_fields(keys, activations=("relu2",), activation_key="mlp_hidden_act", **extra)
    return finish(keys, name, fields)


def _pattern(keys: Keys) -> str:
    """A letter for each layer, or the list of words that newer files have."""
    words = keys.texts("layers_block_type")
    if words is None or "hybrid_override_pattern" in keys.document:
        return keys.text("hybrid_override_pattern")
    unknown = sorted(set(words) - _LETTERS.keys())
    if unknown:
        keys.fail("layers_block_type", "not supported", unknown, " or ".join(_LETTERS))
    return "".join(_LETTERS.get(word, "-") for word in words)
