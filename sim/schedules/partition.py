"""Cut a model's layers into stages so that the busiest rank has as little to do as whole layers allow.

What counts is what a *rank* computes, all its stages together: a rank that holds the vocabulary head in one
chunk gets fewer layers in the others. Costs may be in any one unit: layers, or ns of F + I + W.

Equal layers (`balance_layers`): every stage that would be empty gets one layer, then each layer goes to the
least loaded rank, there to its least loaded stage; ties to the middle of the pipeline first, then to the
first stage, then to the last. Since layers are equal, this greedy rule gives the smallest possible maximum.

Layers of different cost (`balance_stages`): with one stage per rank the smallest possible maximum is found by
bisection (fill each stage up to a limit; the least limit that does). With several, a cut of equal layers is
improved by moves of one layer from a stage of the busiest rank to another, all layers between shifting along,
as long as the busiest rank, then the sum of squares over ranks, gets lighter: good, not proven best.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.plan import PlanStage

__all__ = ["balance_layers", "balance_stages", "rank_loads", "stages_of"]

Floats = NDArray[np.float64]
Placement = Sequence[Sequence[int]]


def balance_layers(
    num_layers: int,
    num_stages: int,
    embedding_layers: float = 0.0,
    head_layers: float = 0.0,
    *,
    placement: Placement | None = None,
    embedding_alone: bool = False,
    head_alone: bool = False,
) -> tuple[int, ...]:
    """Number of layers of each stage, for equal layers.

    Parameters
    ----------
    num_layers, num_stages
        Layers of the model; stages to cut it into.
    embedding_layers, head_layers
        What embedding and head cost, as a number of layers. Where they cost something their stage may be left
        without layers.
    placement
        The ranks of each stage; one rank for each if left out.
    embedding_alone, head_alone
        Whether the first, the last stage must have no layers.

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

    Two ranks with two stages each; the head weighs three layers and lies on rank 1, so does stage 1:

    >>> balance_layers(9, 4, head_layers=3, placement=((0,), (1,), (0,), (1,)))
    (3, 3, 3, 0)
    """
    if num_layers < 1 or num_stages < 1 or embedding_layers < 0 or head_layers < 0:
        raise InvalidInputError(
            "cannot cut the model into stages", got=f"{num_stages} stages for {num_layers} layers"
        )
    placement = _checked_placement(placement, num_stages)
    last = num_stages - 1
    extra = [0.0] * num_stages
    extra[0] += embedding_layers
    extra[last] += head_layers
    closed = {stage for stage, alone in ((0, embedding_alone), (last, head_alone)) if alone}
    counts = [int(stage not in closed and extra[stage] == 0.0) for stage in range(num_stages)]
    left = num_layers - sum(counts)
    if left < 0 or (left > 0 and len(closed) == num_stages):
        raise _no_layer(counts, num_layers)
    ranks = [tuple(here) for here in placement]
    load = {rank: 0.0 for here in ranks for rank in here}
    for stage, here in enumerate(ranks):
        for rank in here:
            load[rank] += (extra[stage] + counts[stage]) / len(here)
    preference = {stage: stage for stage in range(1, last)} | {last: num_stages + 1} | {0: num_stages}

    def key(stage: int) -> tuple[float, float, int, int]:
        """Load of the stage's busiest rank, the stage's own, the place among ties."""
        busiest = max(load[rank] for rank in ranks[stage])
        return busiest, extra[stage] + counts[stage], preference[stage], stage

    heap = [key(stage) for stage in range(num_stages) if stage not in closed]
    heapify(heap)
    while left:
        found = heappop(heap)
        stage = found[-1]
        if found != key(stage):  # its rank has been given more since
            heappush(heap, key(stage))
            continue
        counts[stage] += 1
        for rank in ranks[stage]:
            load[rank] += 1 / len(ranks[stage])
        heappush(heap, key(stage))
        left -= 1
    return tuple(counts)


def balance_stages(
    layer_costs: Sequence[float],
    placement: Placement,
    *,
    embedding_cost: float = 0.0,
    head_cost: float = 0.0,
) -> tuple[int, ...]:
    """Number of layers of each stage, for layers of any costs, in the unit of the costs.

    Parameters
    ----------
    layer_costs
        Cost of each layer, all above 0.
    placement
        The ranks of each stage.
    embedding_cost, head_cost
        What the first and the last stage have beside layers; where it is 0 they get a layer at least.

    Raises
    ------
    InvalidInputError
        If there are too few layers for the stages, or a cost is not above 0.

    Examples
    --------
    >>> balance_stages([1, 1, 1, 4, 1, 1, 1], ((0,), (1,), (2,)))
    (3, 1, 3)
    """
    costs = np.asarray(layer_costs, dtype=np.float64)
    num_stages = len(placement)
    if not len(costs) or not np.isfinite(costs).all() or (costs <= 0).any():
        raise InvalidInputError("costs of layers must be above 0", got=f"{list(layer_costs)[:4]} ..")
    mean = float(costs.mean())
    start = balance_layers(
        len(costs), num_stages, embedding_cost / mean, head_cost / mean, placement=placement
    )
    cut = _Cut(costs, placement, embedding_cost, head_cost)
    held = [rank for here in placement for rank in here]
    if len(set(held)) == len(held) == num_stages:
        start = cut.bisected(start)
    return cut.improved(start)


def rank_loads(
    counts: Sequence[int],
    placement: Placement,
    layer_costs: Sequence[float],
    *,
    embedding_cost: float = 0.0,
    head_cost: float = 0.0,
) -> dict[int, float]:
    """Cost of each rank: its stages', shared evenly where a stage lies on two ranks.

    Examples
    --------
    >>> rank_loads((2, 1), ((0,), (1,)), [1, 1, 1], head_cost=0.5)
    {0: 2.0, 1: 1.5}
    """
    cut = _Cut(np.asarray(layer_costs, dtype=np.float64), placement, embedding_cost, head_cost)
    loads = cut.loads(np.asarray(counts))
    return {rank: float(loads[row]) for row, rank in enumerate(cut.ranks)}


class _Cut:
    """Costs and placement, to weigh cuts with."""

    def __init__(self, costs: Floats, placement: Placement, embedding: float, head: float) -> None:
        self.costs = costs
        self.sums = np.concatenate(([0.0], np.cumsum(costs)))
        self.num_stages = len(placement)
        self.extra = np.zeros(self.num_stages)
        self.extra[0] += embedding
        self.extra[-1] += head
        self.ranks = sorted({rank for here in placement for rank in here})
        self.shares = np.zeros((len(self.ranks), self.num_stages))
        for stage, here in enumerate(placement):
            for rank in here:
                self.shares[self.ranks.index(rank), stage] = 1 / len(here)
        self.least = (self.extra == 0).astype(np.int64)

    def stage_loads(self, counts: NDArray[np.int64]) -> Floats:
        ends = np.cumsum(counts)
        return np.asarray(self.extra + self.sums[ends] - self.sums[ends - counts])

    def loads(self, counts: NDArray[np.int64]) -> Floats:
        return np.asarray(self.shares @ self.stage_loads(counts))

    def weight(self, counts: NDArray[np.int64]) -> tuple[float, float, float]:
        """What is made smaller: the busiest rank, then unevenness of ranks, then of stages."""
        stages = self.stage_loads(counts)
        ranks = self.shares @ stages
        return float(ranks.max()), float((ranks**2).sum()), float((stages**2).sum())

    def bisected(self, start: tuple[int, ...]) -> tuple[int, ...]:
        """The least limit under which filling stage by stage holds all layers; one rank per stage."""
        best = start
        high = float(self.loads(np.asarray(start)).max())
        low = max(float(self.costs.sum() + self.extra.sum()) / self.num_stages, float(self.costs.max()))
        for _ in range(60):
            middle = (low + high) / 2
            filled = self._fill(middle)
            if filled is None:
                low = middle
            else:
                best, high = filled, middle
        return best

    def _fill(self, limit: float) -> tuple[int, ...] | None:
        counts: list[int] = []
        at, num = 0, len(self.costs)
        for stage in range(self.num_stages):
            least, later = int(self.least[stage]), int(self.least[stage + 1 :].sum())
            room = self.sums[at] + limit - float(self.extra[stage])
            stop = int(np.searchsorted(self.sums, room * (1 + 1e-12), side="right")) - 1
            count = min(stop, num - later) - at
            if count < least:
                return None
            counts.append(count)
            at += count
        return tuple(counts) if at == num else None

    def improved(self, start: tuple[int, ...]) -> tuple[int, ...]:
        """Move layers away from the busiest rank as long as that helps."""
        counts = np.asarray(start, dtype=np.int64)
        weight = self.weight(counts)
        for _ in range(8 * self.num_stages):
            loads = self.loads(counts)
            givers = np.flatnonzero(self.shares[int(loads.argmax())] > 0)
            better: NDArray[np.int64] | None = None
            for giver in givers[counts[givers] > self.least[givers]].tolist():
                for taker in range(self.num_stages):
                    moved = counts.copy()
                    moved[giver] -= 1
                    moved[taker] += 1
                    found = self.weight(moved)
                    if taker != giver and found < weight:
                        better, weight = moved, found
            if better is None:
                break
            counts = better
        return tuple(counts.tolist())


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
        raise _no_layer(layers, sum(layers))
    stages: list[PlanStage] = []
    first = 0
    for stage, count in enumerate(layers):
        bounds = (first, first + count - 1) if count else (-1, -1)
        stages.append(PlanStage(*bounds, embedding=stage == 0, head=stage == len(layers) - 1))
        first += count
    return tuple(stages)


def _checked_placement(placement: Placement | None, num_stages: int) -> Placement:
    if placement is None:
        return tuple((stage,) for stage in range(num_stages))
    if len(placement) != num_stages or not all(placement):
        raise InvalidInputError(
            "the placement does not say where each stage lies",
            got=f"{len(placement)} stages",
            expected=f"{num_stages}, each with a rank",
        )
    return placement


def _no_layer(layers: Sequence[int], num_layers: int) -> InvalidInputError:
    return InvalidInputError(
        "a stage would have no layer",
        got=f"{num_layers} layers over {len(layers)} stages",
        expected="at least one layer per stage",
        hint="use fewer pipeline ranks or chunks, or a model with more layers",
    )
