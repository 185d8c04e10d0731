"""Models of every kind, drawn for property tests: small sizes, all blocks, all combinations that can be."""

from __future__ import annotations

from hypothesis import strategies as st

from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind, StateSpace

__all__ = ["models"]


def _sizes(least: int, most: int, step: int = 1) -> st.SearchStrategy[int]:
    return st.integers(least, most).map(lambda value: step * value)


_LATENTS = st.builds(
    LatentAttention,
    q_rank=st.sampled_from([0, 24, 48]),
    kv_rank=_sizes(1, 8, 8),
    nope_dim=_sizes(1, 4, 8),
    rope_dim=_sizes(1, 4, 2),
    v_dim=_sizes(1, 4, 8),
)


@st.composite
def _spaces(draw: st.DrawFn) -> StateSpace:
    groups = draw(_sizes(1, 3))
    return StateSpace(groups * draw(_sizes(1, 4)), draw(_sizes(1, 4, 8)), draw(_sizes(1, 4, 8)), groups)


@st.composite
def _experts(draw: st.DrawFn, layers: int, *, alone: bool) -> Experts:
    num = draw(st.integers(1, 12))
    every = 1 if alone else draw(st.integers(1, layers))
    return Experts(
        num,
        draw(st.integers(1, num)),
        draw(_sizes(1, 6, 8)),
        shared_ffn=draw(st.sampled_from([0, 16, 40])),
        # The last layer of a group of `every` keeps its experts.
        first_dense=0 if alone else draw(st.integers(0, every - 1)),
        every=every,
        latent=draw(st.sampled_from([0, 16])),
    )


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    """A model of any kind that can be: dense, latent, windowed, with experts, hybrid, tied, padded."""
    layers, kv_heads = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    pattern = draw(st.text("M*-E", min_size=layers, max_size=layers)) if draw(st.booleans()) else ""
    further = draw(st.sampled_from(["", "*E", "M-"]))
    has_experts = "E" in pattern + further if pattern else "E" in further or draw(st.booleans())
    if pattern and has_experts and "E" not in pattern:
        pattern = "E" + pattern[1:]
    window = 0 if pattern else draw(st.sampled_from([0, 8, 64]))
    return ModelConfig(
        draw(st.sampled_from(list(ModelKind))),
        layers=layers,
        hidden=draw(_sizes(1, 8, 16)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_dim=draw(_sizes(1, 4, 8)),
        ffn=draw(_sizes(1, 8, 24)),
        vocab=draw(st.integers(1, 500)),
        positions=256,
        tied=draw(st.booleans()),
        gated=draw(st.sampled_from([None, True, False])),
        latent=draw(st.none() | _LATENTS),
        experts=draw(_experts(layers, alone=bool(pattern))) if has_experts else None,
        window=window,
        window_every=draw(st.sampled_from([0, 2, 3])) if window else 0,
        state_space=draw(_spaces()) if "M" in pattern + further else None,
        pattern=pattern,
        mtp_layers=draw(st.integers(0, 2)),
        mtp_pattern=further,
        mtp_repeated=draw(st.booleans()),
        vocab_multiple=draw(st.sampled_from([1, 128])),
    )
