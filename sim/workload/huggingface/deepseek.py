"""DeepSeek-V2, V3 and Kimi K2: multi-head latent attention, routed and shared experts."""

from __future__ import annotations

from exactmap.sim.workload.huggingface.decoder import decoder_fields, finish
from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.model import Experts, LatentAttention

__all__ = ["read_deepseek"]


def read_deepseek(keys: Keys, name: str) -> ImportedModel:
    """A model of the family; without `n_routed_experts` it is dense.

    Experts in groups, of which a token visits a few (`n_group`, `topk_group`), keep a token on as many hosts.
    """
    heads = keys.integer("num_attention_heads")
    latent = LatentAttention(
        q_rank=keys.integer("q_lora_rank", 0, least=0),
        kv_rank=keys.integer("kv_lora_rank"),
        nope_dim=keys.integer("qk_nope_head_dim"),
        rope_dim=keys.integer("qk_rope_head_dim"),
        v_dim=keys.integer("v_head_dim"),
    )
    experts = None
    if keys.has("n_routed_experts"):
        keys.only("moe_layer_freq", (1,), 1)
        ffn = keys.integer("moe_intermediate_size")
        groups = keys.integer("n_group", 1)
        experts = Experts(
            keys.integer("n_routed_experts"),
            keys.integer("num_experts_per_tok"),
            ffn,
            shared_ffn=ffn * keys.integer("n_shared_experts", 0, least=0),
            first_dense=keys.integer("first_k_dense_replace", 0, least=0),
            most_hosts=keys.integer("topk_group", 1) if groups > 1 else 0,
        )
    fields = decoder_fields(
        keys,
        kv_heads=heads,
        head_dim=latent.v_dim,
        latent=latent,
        experts=experts,
        mtp_layers=keys.integer("num_nextn_predict_layers", 0, least=0),
    )
    return finish(keys, name, fields)
