"""Stages in Megatron's notation: ``Et*2|(t*2|)*2tL`` (`exactmap.sim.step.layout.read_layout` reads it)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from exactmap.sim.plan.plan import PlanStage

__all__ = ["write_layout"]


def write_layout(stages: Sequence[PlanStage]) -> str:
    """Stages front to back, equal neighbours as a repeat.

    Examples
    --------
    >>> stages = [
    ...     PlanStage(0, 1, embedding=True),
    ...     PlanStage(2, 3),
    ...     PlanStage(4, 5),
    ...     PlanStage(6, 6, head=True),
    ... ]
    >>> write_layout(stages)
    'Et*2|(t*2|)*2tL'
    """
    words = [_word(stage) for stage in stages]
    out = ""
    for word, run in groupby(words[:-1]):
        count = len(list(run))
        out += f"({word}|)*{count}" if count > 1 else f"{word}|"
    return out + words[-1]


def _word(stage: PlanStage) -> str:
    count = stage.num_layers
    layers = f"t*{count}" if count > 1 else "t" * count
    return f"{'E' * stage.embedding}{layers}{'L' * stage.head}"
