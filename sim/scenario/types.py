"""The resolved sections of a scenario: plain, frozen, in base units."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = ["Engine", "Goal", "Limits", "Optimizer", "ParallelSpace", "Precision", "Training"]


class Precision(StrEnum):
    """Number format of matrix products; what is kept in it is `exactmap.sim.cost.memory`'s to say."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"


class Goal(StrEnum):
    """What a search makes small."""

    STEP_TIME = "step_time"


class Engine(StrEnum):
    """What executes the plan."""

    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW: linear warm-up to `lr`, cosine decay to `min_lr`; `clip` bounds the norm (0: none)."""

    name: str
    lr: float
    min_lr: float
    warmup_steps: int
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip: float


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained.

    Parameters
    ----------
    sequence
        Tokens of a sequence.
    batch_sequences
        Sequences of a step, over all replicas.
    steps
        Steps of the run.
    seed
        Of parameters and data order.
    precision
        Number format of matrix products.
    recompute
        What is computed again in the backward pass: ``none``.
    optimizer
        Its numbers.
    """

    sequence: int
    batch_sequences: int
    steps: int
    seed: int
    precision: Precision
    recompute: str
    optimizer: Optimizer

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_sequences * self.sequence


@dataclass(frozen=True, slots=True)
class ParallelSpace:
    """What a search may choose; None leaves the choice to it.

    Parameters
    ----------
    tp, cp, ep, pp, dp
        Sizes of the mesh axes; of dp ``all``: every number of replicas that fits, not the largest alone.
    chunks
        Stages per pipeline rank.
    microbatch
        Sequences of a microbatch.
    schedule
        Names of schedules.
    zero
        Whether replicas share the optimizer's state (1) or not (0).
    """

    tp: tuple[int, ...] | None = None
    cp: tuple[int, ...] | None = (1,)
    ep: tuple[int, ...] | None = (1,)
    pp: tuple[int, ...] | None = None
    dp: tuple[int, ...] | Literal["all"] | None = None
    chunks: tuple[int, ...] | None = None
    microbatch: tuple[int, ...] | None = None
    schedule: tuple[str, ...] | None = None
    zero: tuple[int, ...] | None = None

    @property
    def replicas(self) -> tuple[int, ...]:
        """Numbers of replicas that are named; empty: those that fit."""
        return self.dp if isinstance(self.dp, tuple) else ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan must keep to: share of memory left free, most GPUs (None: all that are usable)."""

    memory_headroom: float
    gpus: int | None
