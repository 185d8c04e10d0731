"""What a layer keeps of one microbatch between forward and backward, in bytes on one rank.

16-bit activations as Megatron and Transformer Engine keep them: a layer's input and its norm, queries, keys,
values, attention's output, the MLP's input, both products' inputs. Before fused attention: 34 s b h and the
scores, 5 a s^2 b (Korthikanti et al., arXiv:2205.05198, equations 1 to 6), dropout masks included.
Recomputed modules keep their input only. Transformer Engine keeps what narrow products read in 8 bits, and
attention its own output besides.
"""

from __future__ import annotations

from functools import lru_cache

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.workload.model import LayerKind, Mixer, Mlp, ModelConfig
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split

__all__ = ["kept_bytes", "layer_kept_bytes"]


def kept_bytes(setup: TrainingSetup, kind: LayerKind) -> float:
    """Bytes that a layer of a kind keeps for one microbatch under the setup's recompute policy."""
    return layer_kept_bytes(
        setup.model, kind, setup.split, setup.batch, setup.precision, setup.recompute, setup.software
    )


@lru_cache(maxsize=4096)
def layer_kept_bytes(
    model: ModelConfig,
    kind: LayerKind,
    split: Split,
    batch: Batch,
    precision: Precision,
    recompute: Recompute,
    software: Software,
) -> float:
    """As `kept_bytes`, from the parts of a setup."""
    act = precision.act_bytes
    tokens = batch.microbatch * batch.seq / split.cp
    outside = tokens / split.tp if split.sequence_parallel else tokens
    stream = outside * model.hidden * act
    narrow = 0.5 if precision.narrow and software.family != "torchtitan" else 1.0
    everything = _mixer(model, kind, split, batch, recompute, software, tokens, stream, act, narrow)
    everything += _mlp(model, kind, split, recompute, software, tokens, outside, stream, act, narrow)
    if recompute.kind == "full":
        return recompute.share * stream + (1.0 - recompute.share) * everything
    return everything


def _mixer(
    model: ModelConfig,
    kind: LayerKind,
    split: Split,
    batch: Batch,
    recompute: Recompute,
    software: Software,
    tokens: float,
    stream: float,
    act: int,
    narrow: float,
) -> float:
    if kind.mixer is Mixer.NONE:
        return 0.0
    again = recompute.modules if recompute.kind == "modules" else frozenset[str]()
    norm = 0.0 if again & {"layernorm", "save_products", "save_half_products"} else narrow * stream
    if kind.mixer is Mixer.STATE_SPACE:
        space = model.state_space
        assert space is not None, "a state-space layer without its sizes"
        inner = space.heads * space.head_dim
        return stream + norm + tokens / split.tp * act * (6 * inner + 4 * space.groups * space.state)
    heads = model.heads / split.tp
    if model.latent is not None:
        latent = model.latent
        narrow = 2 * latent.q_rank + 2 * latent.kv_rank + latent.rope_dim
        turned = heads * (2 * (latent.nope_dim + latent.rope_dim) + 2 * latent.v_dim + latent.nope_dim)
        wide = 0.0 if "mla_up_proj" in again else tokens * act * turned
        return stream + norm + tokens * act * (narrow + heads * latent.v_dim) + wide
    kv = model.kv_heads / split.tp
    projected = tokens * act * model.head_dim * (heads + 2 * kv)
    out = tokens * act * model.head_dim * heads
    if software.fused_attention:
        return stream + norm + projected + out * (1.0 + narrow if narrow < 1.0 else 1.0)
    # A mask of a byte for the dropout of the output, and scores, softmax, dropout of the square.
    scores = 0.0 if "core_attn" in again else 5.0 * heads * batch.microbatch * batch.seq**2
    return stream + norm + projected + out + stream / 2 + scores


def _mlp(
    model: ModelConfig,
    kind: LayerKind,
    split: Split,
    recompute: Recompute,
    software: Software,
    tokens: float,
    outside: float,
    stream: float,
    act: int,
    narrow: float,
) -> float:
    if kind.mlp is Mlp.NONE:
        return 0.0
    again = recompute.modules if recompute.kind == "modules" else frozenset[str]()
    norm = 0.0 if again & {"layernorm", "save_products", "save_half_products"} else narrow * stream
    gates = 2 if model.has_gate else 1
    small = again & {"save_products", "save_half_products"}
    halves = 0.5 if "save_half_products" in again else 1.0
    if kind.mlp is Mlp.DENSE:
        if "mlp" in again:
            return stream + norm
        up = tokens / split.tp * model.ffn * act
        inner = up * (gates * halves + (0 if small else narrow))
        mask = 0.0 if software.fused_attention else stream / 2
        return stream + norm + inner + mask
    experts = model.experts
    assert experts is not None, "a layer of experts without experts"
    if "moe" in again:
        return stream + norm
    width = experts.latent or model.hidden
    visits = outside * experts.top_k
    inner = visits * experts.ffn * act * (gates + (0 if again & {"moe_act"} or small else narrow))
    routed = visits * width * act * (1 + narrow) + outside * experts.num_experts * 8
    shared = outside * experts.shared_ffn * act * (gates + narrow)
    return stream + norm + inner + routed + shared
