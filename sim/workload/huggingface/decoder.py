"""What the files of nearly all families share: sizes, rotary positions, windows, and what becomes a note.

Keys and defaults are those of the Llama configuration of transformers, which the other families began as.
"""

from __future__ import annotations

from typing import Any

from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.model import ModelConfig, ModelKind

__all__ = ["decoder_fields", "finish", "window_fields"]

_NEXT_TO_NOTHING = {
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "use_qk_norm": "use_qk_norm",
    "final_logit_softcapping": "final_logit_softcapping",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "clip_qkv": "clip_qkv",
}
"""Keys whose meaning no cost depends on by more than a little, beside layers of products."""


def decoder_fields(
    keys: Keys,
    *,
    activations: tuple[str, ...] = ("silu",),
    activation_key: str = "hidden_act",
    **extra: object,
) -> dict[str, Any]:
    """Fields of a `ModelConfig` that the Llama configuration has; notes on what it has beyond.

    Parameters
    ----------
    keys
        The file.
    activations, activation_key
        Activations that the family may have; the first is its default.
    extra
        Fields that go before the file's.
    """
    keys.only(activation_key, activations, activations[0])
    hidden, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    needs_head_dim = "head_dim" not in extra and keys.document.get("head_dim") is None
    if needs_head_dim and hidden % heads:
        keys.fail("num_attention_heads", "does not divide hidden_size", heads, f"a divisor of {hidden}")
    out: dict[str, Any] = {
        "kind": ModelKind.LLAMA,
        "layers": keys.integer("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "vocab": keys.integer("vocab_size"),
        "positions": keys.integer("max_position_embeddings"),
        "tied": keys.flag("tie_word_embeddings", default=False),
        "norm_eps": keys.number("rms_norm_eps", 1e-6) if "norm_eps" not in extra else 0.0,
        "rope_theta": _rope_theta(keys),
    }
    if "kv_heads" not in extra:
        out["kv_heads"] = keys.integer("num_key_value_heads", heads)
    if "head_dim" not in extra:
        out["head_dim"] = keys.integer("head_dim", max(1, hidden // heads))
    if "ffn" not in extra:
        out["ffn"] = keys.integer("intermediate_size")
    keys.leave_out(*(name for key, name in _NEXT_TO_NOTHING.items() if keys.has(key)))
    return {**out, **extra}


def _rope_theta(keys: Keys) -> float:
    """The base of the rotary angles, which transformers 5 nests; scaling becomes a note."""
    rope = keys.inside("rope_parameters")
    theta = rope.number("rope_theta", keys.number("rope_theta", 10_000.0))
    scaled = [
        key
        for key, asked in (
            ("rope_scaling", keys.document.get("rope_scaling") is not None),
            ("rope_parameters", rope.document.get("rope_type", "default") != "default"),
        )
        if asked
    ]
    if scaled:
        keys.note(f"{scaled[0]} is left out: no cost depends on it, but the C engine runs without it")
    return theta


def window_fields(keys: Keys, *, default_every: int = 0, key: str = "sliding_window") -> dict[str, Any]:
    """Fields of a sliding window, if layers have one; layers that lie in no regular order are refused.

    Parameters
    ----------
    keys
        The file; its `layer_types` say which layers have the window.
    default_every
        Without `layer_types`: one layer in so many sees the whole sequence; 0: none does.
    key
        Where the window's tokens stand.
    """
    if keys.document.get(key) is None:
        return {}
    window, types = keys.integer(key), keys.texts("layer_types")
    if types is None:
        return {"window": window, "window_every": default_every}
    whole = [number for number, kind in enumerate(types, 1) if kind == "full_attention"]
    known = {"full_attention", "sliding_attention"}
    if not set(types) <= known:
        others = sorted(set(types) - known)
        keys.fail("layer_types", "not supported", others, "full_attention or sliding_attention")
        return {}
    if not whole:
        return {"window": window}
    if len(whole) == len(types):
        return {}
    every = whole[0]
    if whole != list(range(every, len(types) + 1, every)):
        what = "layers with a window lie in no regular order"
        keys.fail("layer_types", what, whole, "the last layer of each group of n without one")
        return {}
    return {"window": window, "window_every": every}


def finish(keys: Keys, name: str, fields: dict[str, Any]) -> ImportedModel:
    """The model, or all problems of its file."""
    keys.finish()
    return ImportedModel(ModelConfig(**fields, name=name), tuple(keys.notes))
