"""A decoder-only transformer in float64 NumPy, forward and backward written by hand.

The yardstick of the C engine's numerics: both flavours (GPT-2, Llama), parameters in a dictionary under
Hugging Face names and layouts, whole attention matrices, no tiles, no stash. It shares nothing with the C
code; finite differences in the tests check it.

Legend of shapes: B sequences, S positions, H hidden, N heads, G key/value heads, D head size, V vocabulary.
Sources: Radford et al. 2019 (GPT-2), Touvron et al. 2023 (Llama), Loshchilov and Hutter 2019 (AdamW).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AdamW", "Model", "adamw_step", "forward", "initial", "logits", "loss_and_gradients"]

Array = NDArray[np.float64]
Tokens = NDArray[np.int32]
Params = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Model:
    """Shape of a model; `kind` is "gpt2" or "llama"."""

    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tied: bool = False

    @property
    def llama(self) -> bool:
        return self.kind == "llama"


def initial(model: Model, rng: np.random.Generator, spread: float = 1.0) -> Params:
    """Random parameters of a useful size: no gain is exactly 1, no bias exactly 0."""
    width = model.heads * model.head_dim
    kv_width = model.kv_heads * model.head_dim

    def matrix(*shape: int) -> Array:
        return rng.normal(0.0, spread / np.sqrt(model.hidden), shape)

    def gain() -> Array:
        return rng.normal(1.0, 0.1, model.hidden)

    def bias(size: int) -> Array:
        return rng.normal(0.0, 0.1, size)

    p: Params = {}
    if model.llama:
        p["model.embed_tokens.weight"] = matrix(model.vocab, model.hidden)
        for i in range(model.layers):
            base = f"model.layers.{i}"
            p[f"{base}.input_layernorm.weight"] = gain()
            p[f"{base}.self_attn.q_proj.weight"] = matrix(width, model.hidden)
            p[f"{base}.self_attn.k_proj.weight"] = matrix(kv_width, model.hidden)
            p[f"{base}.self_attn.v_proj.weight"] = matrix(kv_width, model.hidden)
            p[f"{base}.self_attn.o_proj.weight"] = matrix(model.hidden, width)
            p[f"{base}.post_attention_layernorm.weight"] = gain()
            p[f"{base}.mlp.gate_proj.weight"] = matrix(model.ffn, model.hidden)
            p[f"{base}.mlp.up_proj.weight"] = matrix(model.ffn, model.hidden)
            p[f"{base}.mlp.down_proj.weight"] = matrix(model.hidden, model.ffn)
        p["model.norm.weight"] = gain()
    else:
        p["transformer.wte.weight"] = matrix(model.vocab, model.hidden)
        p["transformer.wpe.weight"] = matrix(model.positions, model.hidden)
        for i in range(model.layers):
            base = f"transformer.h.{i}"
            p[f"{base}.ln_1.weight"] = gain()
            p[f"{base}.ln_1.bias"] = bias(model.hidden)
            p[f"{base}.attn.c_attn.weight"] = matrix(model.hidden, width + 2 * kv_width)
            p[f"{base}.attn.c_attn.bias"] = bias(width + 2 * kv_width)
            p[f"{base}.attn.c_proj.weight"] = matrix(width, model.hidden)
            p[f"{base}.attn.c_proj.bias"] = bias(model.hidden)
            p[f"{base}.ln_2.weight"] = gain()
            p[f"{base}.ln_2.bias"] = bias(model.hidden)
            p[f"{base}.mlp.c_fc.weight"] = matrix(model.hidden, model.ffn)
            p[f"{base}.mlp.c_fc.bias"] = bias(model.ffn)
            p[f"{base}.mlp.c_proj.weight"] = matrix(model.ffn, model.hidden)
            p[f"{base}.mlp.c_proj.bias"] = bias(model.hidden)
        p["transformer.ln_f.weight"] = gain()
        p["transformer.ln_f.bias"] = bias(model.hidden)
    if not model.tied:
        p["lm_head.weight"] = matrix(model.vocab, model.hidden)
    return p


# ---- building blocks: each forward returns what its backward needs ----


def _norm(x: Array, gain: Array, bias: Array | None, eps: float) -> tuple[Array, tuple[Array, Array]]:
    """LayerNorm with a bias, RMSNorm without."""
    centred = x - x.mean(-1, keepdims=True) if bias is not None else x
    rstd = 1.0 / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    xhat = centred * rstd
    return xhat * gain + (0.0 if bias is None else bias), (xhat, rstd)


def _norm_back(
    dy: Array, gain: Array, centred: bool, saved: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    xhat, rstd = saved
    axes = tuple(range(dy.ndim - 1))
    e = dy * gain
    dx = e - xhat * (e * xhat).mean(-1, keepdims=True)
    if centred:
        dx = dx - e.mean(-1, keepdims=True)
    return dx * rstd, (dy * xhat).sum(axes), dy.sum(axes)


def _gelu(u: Array) -> Array:
    return 0.5 * u * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (u + 0.044715 * u**3)))


def _gelu_slope(u: Array) -> Array:
    t = np.tanh(np.sqrt(2.0 / np.pi) * (u + 0.044715 * u**3))
    return 0.5 * (1.0 + t) + 0.5 * u * (1.0 - t**2) * np.sqrt(2.0 / np.pi) * (1.0 + 3 * 0.044715 * u**2)


def _rotation(model: Model, num_positions: int) -> tuple[Array, Array]:
    """Cosines and sines, [S, D], each frequency twice (half-split convention)."""
    frequencies = model.rope_theta ** (-np.arange(0, model.head_dim, 2) / model.head_dim)
    angles = np.arange(num_positions)[:, None] * np.concatenate([frequencies, frequencies])
    return np.cos(angles), np.sin(angles)


def _half_turn(x: Array) -> Array:
    half = x.shape[-1] // 2
    return np.concatenate([-x[..., half:], x[..., :half]], axis=-1)


def _attention(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """q, k, v are [B, N, S, D]; gives the output and the softmax [B, N, S, S]."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = np.where(np.tril(np.ones(scores.shape[-2:], dtype=bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return weights @ v, weights


def _split(x: Array, num_heads: int) -> Array:
    """[B, S, N D] -> [B, N, S, D]."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


def _join(x: Array) -> Array:
    """[B, N, S, D] -> [B, S, N D]."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


class _Layer:
    """One layer: forward keeps what backward reads; gradients go into a dictionary."""

    def __init__(self, model: Model, params: Params, index: int) -> None:
        self.model, self.p = model, params
        base = f"model.layers.{index}" if model.llama else f"transformer.h.{index}"
        self.base = base
        self.norm1 = f"{base}.input_layernorm" if model.llama else f"{base}.ln_1"
        self.norm2 = f"{base}.post_attention_layernorm" if model.llama else f"{base}.ln_2"

    def _linear(self, names: list[str], x: Array) -> Array:
        if self.model.llama:
            return np.concatenate([x @ self.p[f"{self.base}.{n}.weight"].T for n in names], axis=-1)
        (name,) = names
        return x @ self.p[f"{self.base}.{name}.weight"] + self.p[f"{self.base}.{name}.bias"]

    def _linear_back(self, names: list[str], x: Array, dy: Array, grads: Params) -> Array:
        rows, flat = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        if not self.model.llama:
            (name,) = names
            grads[f"{self.base}.{name}.weight"] = rows.T @ flat
            grads[f"{self.base}.{name}.bias"] = flat.sum(0)
            return dy @ self.p[f"{self.base}.{name}.weight"].T
        dx = np.zeros_like(x)
        start = 0
        for name in names:
            weight = self.p[f"{self.base}.{name}.weight"]
            end = start + weight.shape[0]
            grads[f"{self.base}.{name}.weight"] = flat[:, start:end].T @ rows
            dx += dy[..., start:end] @ weight
            start = end
        return dx

    @property
    def _names(self) -> tuple[list[str], list[str], list[str], list[str]]:
        if self.model.llama:
            qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
            return qkv, ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]
        return ["attn.c_attn"], ["attn.c_proj"], ["mlp.c_fc"], ["mlp.c_proj"]

    def _normalise(self, name: str, x: Array) -> tuple[Array, tuple[Array, Array]]:
        return _norm(x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"), self.model.norm_eps)

    def _normalise_back(self, name: str, dy: Array, saved: tuple[Array, Array], grads: Params) -> Array:
        dx, dgain, dbias = _norm_back(dy, self.p[f"{name}.weight"], not self.model.llama, saved)
        grads[f"{name}.weight"] = dgain
        if not self.model.llama:
            grads[f"{name}.bias"] = dbias
        return dx

    def forward(self, x: Array) -> Array:
        m = self.model
        qkv_names, o_names, up_names, down_names = self._names
        self.n1, self.saved1 = self._normalise(self.norm1, x)
        qkv = self._linear(qkv_names, self.n1)
        q, k, v = np.split(qkv, [m.heads * m.head_dim, (m.heads + m.kv_heads) * m.head_dim], axis=-1)
        self.q, self.k, self.v = _split(q, m.heads), _split(k, m.kv_heads), _split(v, m.kv_heads)
        if m.llama:
            self.cos, self.sin = _rotation(m, x.shape[1])
            self.q = self.q * self.cos + _half_turn(self.q) * self.sin
            self.k = self.k * self.cos + _half_turn(self.k) * self.sin
        repeat = m.heads // m.kv_heads
        o, self.weights = _attention(self.q, self.k.repeat(repeat, axis=1), self.v.repeat(repeat, axis=1))
        self.o = _join(o)
        x1 = x + self._linear(o_names, self.o)
        self.n2, self.saved2 = self._normalise(self.norm2, x1)
        self.u = self._linear(up_names, self.n2)
        if m.llama:
            gate, up = np.split(self.u, 2, axis=-1)
            self.act = gate / (1.0 + np.exp(-gate)) * up
        else:
            self.act = _gelu(self.u)
        return x1 + self._linear(down_names, self.act)

    def backward(self, dy: Array, grads: Params) -> Array:
        m = self.model
        qkv_names, o_names, up_names, down_names = self._names
        dact = self._linear_back(down_names, self.act, dy, grads)
        if m.llama:
            gate, up = np.split(self.u, 2, axis=-1)
            s = 1.0 / (1.0 + np.exp(-gate))
            du = np.concatenate([dact * up * s * (1.0 + gate * (1.0 - s)), dact * gate * s], axis=-1)
        else:
            du = dact * _gelu_slope(self.u)
        dn2 = self._linear_back(up_names, self.n2, du, grads)
        dx1 = dy + self._normalise_back(self.norm2, dn2, self.saved2, grads)
        do = _split(self._linear_back(o_names, self.o, dx1, grads), m.heads)
        repeat = m.heads // m.kv_heads
        keys, values = self.k.repeat(repeat, axis=1), self.v.repeat(repeat, axis=1)
        dweights = do @ values.swapaxes(-1, -2)
        dscores = self.weights * (dweights - (dweights * self.weights).sum(-1, keepdims=True))
        dscores /= np.sqrt(m.head_dim)
        dq = dscores @ keys
        dk = dscores.swapaxes(-1, -2) @ self.q
        dv = self.weights.swapaxes(-1, -2) @ do
        groups = (dq.shape[0], m.kv_heads, repeat, *dq.shape[2:])
        dk, dv = dk.reshape(groups).sum(2), dv.reshape(groups).sum(2)
        if m.llama:
            dq = dq * self.cos - _half_turn(dq * self.sin)
            dk = dk * self.cos - _half_turn(dk * self.sin)
        dqkv = np.concatenate([_join(dq), _join(dk), _join(dv)], axis=-1)
        dn1 = self._linear_back(qkv_names, self.n1, dqkv, grads)
        return dx1 + self._normalise_back(self.norm1, dn1, self.saved1, grads)


def _names(model: Model) -> tuple[str, str, str]:
    """Names of the embedding, the final norm and the head's weight."""
    wte = "model.embed_tokens.weight" if model.llama else "transformer.wte.weight"
    norm = "model.norm" if model.llama else "transformer.ln_f"
    return wte, norm, wte if model.tied else "lm_head.weight"


def forward(model: Model, params: Params, tokens: Tokens) -> tuple[list[_Layer], list[Array]]:
    """Streams: the embedding's output, then each layer's; and the layers with what they kept."""
    wte, _, _ = _names(model)
    x = params[wte][tokens]
    if not model.llama:
        x = x + params["transformer.wpe.weight"][: tokens.shape[1]]
    streams, layers = [x], []
    for index in range(model.layers):
        layer = _Layer(model, params, index)
        streams.append(layer.forward(streams[-1]))
        layers.append(layer)
    return layers, streams


def logits(model: Model, params: Params, tokens: Tokens) -> Array:
    """Logits of all positions, [B, S, V]."""
    _, norm, head = _names(model)
    _, streams = forward(model, params, tokens)
    n, _ = _norm(streams[-1], params[f"{norm}.weight"], params.get(f"{norm}.bias"), model.norm_eps)
    return n @ params[head].T


def loss_and_gradients(
    model: Model, params: Params, tokens: Tokens, targets: Tokens, scale: float
) -> tuple[float, Params, list[Array]]:
    """Sum of the token losses, gradients of scale * loss, and those of each stream (see `forward`)."""
    wte, norm, head = _names(model)
    layers, streams = forward(model, params, tokens)
    gain, bias = params[f"{norm}.weight"], params.get(f"{norm}.bias")
    n, saved = _norm(streams[-1], gain, bias, model.norm_eps)
    z = n @ params[head].T
    top = z.max(-1, keepdims=True)
    lse = top + np.log(np.exp(z - top).sum(-1, keepdims=True))
    counted = targets >= 0
    picked = np.take_along_axis(z, np.where(counted, targets, 0)[..., None], axis=-1)
    loss = float(((lse - picked)[..., 0] * counted).sum())

    dz = np.exp(z - lse)
    np.put_along_axis(
        dz,
        np.where(counted, targets, 0)[..., None],
        np.take_along_axis(dz, np.where(counted, targets, 0)[..., None], -1) - 1.0,
        -1,
    )
    dz *= counted[..., None] * scale
    grads: Params = {name: np.zeros_like(value) for name, value in params.items()}
    grads[head] = grads[head] + dz.reshape(-1, model.vocab).T @ n.reshape(-1, model.hidden)
    dx, dgain, dbias = _norm_back(dz @ params[head], gain, bias is not None, saved)
    grads[f"{norm}.weight"] = dgain
    if bias is not None:
        grads[f"{norm}.bias"] = dbias
    flows = [dx]
    for layer in reversed(layers):
        flows.append(layer.backward(flows[-1], grads))
    np.add.at(grads[wte], tokens, flows[-1])
    if not model.llama:
        grads["transformer.wpe.weight"][: tokens.shape[1]] += flows[-1].sum(0)
    return loss, grads, flows[::-1]


@dataclass(frozen=True, slots=True)
class AdamW:
    """Numbers of the optimizer; `clip` 0 means no clipping."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 0.0


def adamw_step(
    params: Params,
    grads: Params,
    first: Params,
    second: Params,
    hyper: AdamW,
    step: int,
    lr: float | None = None,
) -> float:
    """One update in place, decay on matrices alone; returns the gradients' global norm."""
    norm = float(np.sqrt(sum(float((g**2).sum()) for g in grads.values())))
    factor = min(1.0, hyper.clip / norm) if hyper.clip > 0 and norm > 0 else 1.0
    rate = hyper.lr if lr is None else lr
    for name, value in params.items():
        g = grads[name] * factor
        first[name] = hyper.beta1 * first[name] + (1 - hyper.beta1) * g
        second[name] = hyper.beta2 * second[name] + (1 - hyper.beta2) * g**2
        mean = first[name] / (1 - hyper.beta1**step)
        spread = np.sqrt(second[name] / (1 - hyper.beta2**step)) + hyper.eps
        decay = hyper.weight_decay if value.ndim > 1 else 0.0
        params[name] = value - rate * (mean / spread + decay * value)
    return norm
