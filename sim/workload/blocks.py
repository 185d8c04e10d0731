"""Building blocks that not every model has: latent attention, mixtures of experts, state-space mixers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Experts", "LatentAttention", "StateSpace"]


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): queries, keys, values from narrow latents.

    Parameters
    ----------
    q_rank
        Width of the queries' latent; 0: queries come straight from the stream.
    kv_rank
        Width of the latent that keys and values come from.
    nope_dim, rope_dim, v_dim
        Per head: channels without and with rotary positions of a query or key; channels of a value.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of a dense MLP.

    Parameters
    ----------
    num_experts, top_k, ffn
        Routed experts, how many of them a token visits, the inner width of each.
    shared_ffn
        Inner width of the shared experts together, which every token visits; 0: none.
    first_dense
        Layers at the front that have a dense MLP.
    every
        One layer in so many has experts (the last of each group); the others are dense.
    latent
        Width that tokens are projected to before they are routed (latent experts); 0: the stream's.
    most_hosts
        Hosts that a token's experts lie on at most (node-limited routing); 0: no limit.
    """

    num_experts: int
    top_k: int
    ffn: int
    shared_ffn: int = 0
    first_dense: int = 0
    every: int = 1
    latent: int = 0
    most_hosts: int = 0


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A Mamba-2 mixer (arXiv:2405.21060).

    Parameters
    ----------
    heads, head_dim, state, groups, conv
        Heads, channels of a head, size of the state, groups that share B and C, taps of the convolution.
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    conv: int = 4

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim

    @property
    def shared(self) -> int:
        """Width of B and C of all groups together."""
        return 2 * self.groups * self.state
