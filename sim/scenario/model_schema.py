"""What a scenario may say about its model: fields, sections, bounds.

Names are those of `exactmap.sim.workload.model`. All may be left out, since a preset or a file may bring
them; what is then missing is for `exactmap.sim.scenario.model_section` to say.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ExpertsSection", "LatentSection", "ModelSection", "StateSpaceSection"]

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LatentSection(_Section):
    """Multi-head latent attention."""

    q_rank: Count | None = Field(default=None, description="width of the queries' latent; 0: none")
    kv_rank: Positive | None = Field(default=None, description="width of the latent of keys and values")
    nope_dim: Count | None = Field(default=None, description="channels of a query without positions")
    rope_dim: Count | None = Field(default=None, description="channels of a query with rotary positions")
    v_dim: Positive | None = Field(default=None, description="channels of a value")


class ExpertsSection(_Section):
    """A mixture of experts in place of dense MLPs."""

    num_experts: Positive | None = Field(default=None, description="routed experts")
    top_k: Positive | None = Field(default=None, description="of which a token visits so many")
    ffn: Positive | None = Field(default=None, description="inner width of one")
    shared_ffn: Count | None = Field(default=None, description="inner width of the shared ones together")
    first_dense: Count | None = Field(default=None, description="layers at the front with a dense MLP")
    every: Positive | None = Field(default=None, description="one layer in so many has experts")
    latent: Count | None = Field(default=None, description="width that tokens are routed in; 0: the stream's")
    most_hosts: Count | None = Field(
        default=None, description="hosts that a token's experts lie on at most; 0: any"
    )


class StateSpaceSection(_Section):
    """A Mamba-2 mixer."""

    heads: Positive | None = None
    head_dim: Positive | None = None
    state: Positive | None = Field(default=None, description="size of the state of a channel")
    groups: Positive | None = Field(default=None, description="groups of heads that share B and C")
    conv: Positive | None = Field(default=None, description="taps of the convolution; default: 4")


class ModelSection(_Section):
    """The model: a preset, a Hugging Face file, or its sizes; sizes beside a preset replace its own."""

    preset: str | None = None
    huggingface: str | None = Field(default=None, description="a config.json, relative to the scenario")
    name: str | None = None
    kind: Literal["gpt", "llama"] | None = None
    layers: Positive | None = None
    hidden: Positive | None = None
    heads: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    ffn: Positive | None = None
    vocab: Positive | None = None
    positions: Positive | None = None
    tied: bool | None = None
    norm_eps: Annotated[float, Field(gt=0.0)] | None = None
    rope_theta: Annotated[float, Field(gt=0.0)] | None = None
    gated: bool | None = Field(
        default=None, description="whether MLPs multiply by a gate; default: llama does, gpt does not"
    )
    latent: LatentSection | None = None
    experts: ExpertsSection | None = None
    clamped: bool | None = Field(default=None, description="whether the experts' gate is clamped (GPT-OSS)")
    window: Count | None = Field(default=None, description="tokens of a sliding window; 0: none")
    window_every: Count | None = Field(
        default=None, description="one layer in so many sees the whole sequence; 0: none does"
    )
    state_space: StateSpaceSection | None = None
    pattern: str | None = Field(
        default=None, description="a letter for each layer: M state space, * attention, - MLP, E experts"
    )
    mtp_layers: Count | None = Field(default=None, description="depths that predict further tokens")
    mtp_pattern: str | None = Field(
        default=None, description="layers of a depth, as in pattern; default: one like the last"
    )
    mtp_repeated: bool | None = Field(
        default=None, description="whether all depths run the same layers, in 16 bits"
    )
    vocab_multiple: Positive | None = Field(
        default=None, description="the vocabulary is padded to a multiple of it times tp"
    )
