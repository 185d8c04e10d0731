"""Families of dense decoders: GPT-2, Llama and what has its layers.

Nemotron-3 and -4 have a squared ReLU and no gate (arXiv:2402.16819). Layers of Gemma, GLM-4 and OLMo 2 have
norms in other places or more of them, which are neither priced nor counted, and are noted.
"""

from __future__ import annotations

from typing import Any

from exactmap.sim.workload.huggingface.decoder import decoder_fields, finish, window_fields
from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.model import ModelKind

__all__ = [
    "qwen_window",
    "read_gemma",
    "read_glm4",
    "read_gpt2",
    "read_llama",
    "read_mistral",
    "read_nemotron",
    "read_olmo2",
    "read_qwen2",
    "read_qwen3",
]

_GEMMA_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")
_GEMMA_EVERY = {"gemma": 0, "gemma2": 2, "gemma3_text": 6}
"""One layer in so many without a window, where the file does not say."""


def read_gpt2(keys: Keys, name: str) -> ImportedModel:
    """GPT-2: learned positions, biases, GELU."""
    keys.only("activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
    keys.only("scale_attn_by_inverse_layer_idx", (False,), False)
    keys.only("add_cross_attention", (False,), False)
    keys.only("scale_attn_weights", (True,), True)
    hidden, heads = keys.integer("n_embd"), keys.integer("n_head")
    if hidden % heads:
        keys.fail("n_head", "does not divide n_embd", heads, f"a divisor of {hidden}")
    fields = {
        "kind": ModelKind.GPT,
        "layers": keys.integer("n_layer"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": max(1, hidden // heads),
        "ffn": keys.integer("n_inner", 4 * hidden),
        "vocab": keys.integer("vocab_size"),
        "positions": keys.integer("n_positions"),
        "tied": keys.flag("tie_word_embeddings", default=True),
        "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
    }
    return finish(keys, name, fields)


def read_llama(keys: Keys, name: str) -> ImportedModel:
    """Llama 1 to 3."""
    return finish(keys, name, decoder_fields(keys))


def read_mistral(keys: Keys, name: str) -> ImportedModel:
    """Mistral: all layers have the window, if there is one."""
    return finish(keys, name, decoder_fields(keys) | window_fields(keys))


def qwen_window(keys: Keys) -> dict[str, Any]:
    """Qwen's window is off unless asked for, and then begins at a layer."""
    if not keys.flag("use_sliding_window", default=False):
        return {}
    if "layer_types" in keys.document:
        return window_fields(keys)
    layers, first = keys.integer("num_hidden_layers"), keys.integer("max_window_layers", 28, least=0)
    if first >= layers:
        return {}
    if first:
        keys.fail("max_window_layers", "a window that begins at a layer is not supported", first, "0")
    return window_fields(keys)


def read_qwen2(keys: Keys, name: str) -> ImportedModel:
    """Qwen 2 and 2.5: biases of queries, keys and values."""
    keys.leave_out("biases of queries, keys and values")
    return finish(keys, name, decoder_fields(keys) | qwen_window(keys))


def read_qwen3(keys: Keys, name: str) -> ImportedModel:
    """Qwen 3, dense: queries and keys are normalised."""
    keys.leave_out("norms of queries and keys")
    return finish(keys, name, decoder_fields(keys) | qwen_window(keys))


def read_gemma(keys: Keys, name: str) -> ImportedModel:
    """Gemma 1 to 3, text: tied, a wide head, windows in all layers but some."""
    family = str(keys.document["model_type"])
    key = (
        "hidden_act"
        if family == "gemma" and "hidden_activation" not in keys.document
        else "hidden_activation"
    )
    fields = decoder_fields(keys, activations=_GEMMA_ACTIVATIONS, activation_key=key)
    fields["tied"] = keys.flag("tie_word_embeddings", default=True)
    if family != "gemma":
        keys.leave_out("norms after attention and MLP")
        every = keys.integer("sliding_window_pattern", _GEMMA_EVERY[family])
        fields |= window_fields(keys, default_every=every)
    return finish(keys, name, fields)


def read_glm4(keys: Keys, name: str) -> ImportedModel:
    """GLM-4, dense."""
    keys.leave_out("norms after attention and MLP")
    return finish(keys, name, decoder_fields(keys))


def read_olmo2(keys: Keys, name: str) -> ImportedModel:
    """OLMo 2: norms after attention and MLP instead of before, as many as here."""
    keys.leave_out("norms of queries and keys")
    return finish(keys, name, decoder_fields(keys))


def read_nemotron(keys: Keys, name: str) -> ImportedModel:
    """Nemotron-3 and -4: squared ReLU, no gate, LayerNorm."""
    keys.leave_out("biases of norms")
    epsilon = keys.number("norm_eps", 1e-5)
    fields = decoder_fields(keys, activations=("relu2",), gated=False, norm_eps=epsilon)
    return finish(keys, name, fields)
