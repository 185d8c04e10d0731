"""Cut a model's layers into stages so that the heaviest stage is as light as whole layers allow.

All layers cost the same; the embedding adds to the first stage and the head to the last, in units of one
layer. Each layer goes to the stage with the least load so far, ties to the middle of the pipeline first, then
to the first stage, then to the last. Since layers are equal, this greedy rule gives the smallest possible
maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.plan import PlanStage

__all__ = ["balance_layers", "stages_of"]


def balance_layers(
    num_layers: int, num_stages: int, embedding_layers: float = 0.0, head_layers: float = 0.0
) -> tuple[int, ...]:
    """Number of layers of each stage.

    Parameters
    ----------
    num_layers, num_stages
        Layers of the model; stages to cut it into.
    embedding_layers, head_layers
        What embedding and head cost, as a number of layers. Where they cost something their stage may be left
        without layers.

    Raises
    ------
    InvalidInputError
        If there are too few layers for the stages.

    Examples
    --------
    >>> balance_layers(10, 4)
    (2, 3, 3, 2)
    >>> balance_layers(10, 4, head_layers=1.5)
    (3, 3, 3, 1)
    """
    if num_layers < 1 or num_stages < 1 or embedding_layers < 0 or head_layers < 0:
        raise InvalidInputError(
            "cannot cut the model into stages", got=f"{num_stages} stages for {num_layers} layers"
        )
    last = num_stages - 1
    extra = [0.0] * num_stages
    extra[0] += embedding_layers
    extra[last] += head_layers
    preference = {stage: stage for stage in range(1, last)} | {last: num_stages + 1} | {0: num_stages}
    loads = [(extra[stage], preference[stage], stage) for stage in range(num_stages)]
    heapify(loads)
    counts = [0] * num_stages
    for _ in range(num_layers):
        load, order, stage = loads[0]
        heapreplace(loads, (load + 1.0, order, stage))
        counts[stage] += 1
    if any(count == 0 and extra[stage] == 0.0 for stage, count in enumerate(counts)):
        raise _no_layer(counts)
    return tuple(counts)


def stages_of(layers: Sequence[int]) -> tuple[PlanStage, ...]:
    """Stages with the given numbers of layers; the first has the embedding, the last the head.

    Raises
    ------
    InvalidInputError
        If a stage in the middle has no layer.

    Examples
    --------
    >>> [(stage.first, stage.last) for stage in stages_of((2, 1))]
    [(0, 1), (2, 2)]
    """
    if not layers or min(layers) < 0 or 0 in layers[1:-1]:
        raise _no_layer(layers)
    stages: list[PlanStage] = []
    first = 0
    for stage, count in enumerate(layers):
        bounds = (first, first + count - 1) if count else (-1, -1)
        stages.append(PlanStage(*bounds, embedding=stage == 0, head=stage == len(layers) - 1))
        first += count
    return tuple(stages)


def _no_layer(layers: Sequence[int]) -> InvalidInputError:
    return InvalidInputError(
        "a stage would have no layer",
        got=f"{sum(layers)} layers over {len(layers)} stages",
        expected="at least one layer per stage",
        hint="use fewer pipeline ranks or chunks, or a model with more layers",
    )
