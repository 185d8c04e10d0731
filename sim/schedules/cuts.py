"""Where to put embedding and head, and how to cut the layers around them: choices, priced by walking orders.

A vocabulary head easily costs several layers, an embedding little but its weight gradient. For each schedule
and number of chunks there are four cuts: embedding and head beside layers of their stage or alone in it. What
that means for ranks depends on the placement: on a loop they lie on the first and the last rank, on a V both
on the first, which then gets fewer layers. Each choice is balanced (`partition`) and its order is walked, so
that what counts is the step, not the balance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.schedules.partition import balance_layers, rank_loads
from exactmap.sim.schedules.registry import find_schedule, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

__all__ = ["Cut", "PartCosts", "choose_cut", "stage_times"]


@dataclass(frozen=True, slots=True)
class PartCosts:
    """What each part of a model costs for one microbatch: op (F, I, W) -> ns."""

    layer_ns: Mapping[str, int]
    embedding_ns: Mapping[str, int]
    head_ns: Mapping[str, int]

    def total_ns(self, part: Mapping[str, int]) -> int:
        """F + I + W of a part."""
        return sum(part.get(op, 0) for op in "FIW")


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut and schedule a model.

    Attributes
    ----------
    schedule, chunks
        Name in the registry, chunks per rank.
    embedding_alone, head_alone
        Whether the first and the last stage have no layers.
    layers
        Layers of each stage.
    busiest_ns
        F + I + W of one microbatch on the busiest rank.
    makespan_ns
        Barrier makespan of the passes and hops of a step.
    """

    schedule: str
    chunks: int
    embedding_alone: bool
    head_alone: bool
    layers: tuple[int, ...]
    busiest_ns: int
    makespan_ns: int


def stage_times(layers: Sequence[int], costs: PartCosts, hop_ns: int = 0) -> WorkTimes:
    """Durations of F, I and W of each stage of a cut.

    Examples
    --------
    >>> costs = PartCosts({"F": 10, "I": 10, "W": 10}, {"W": 5}, {"F": 20, "I": 20, "W": 20})
    >>> stage_times((1, 0), costs).work_ns["F", 1]
    20
    """
    work_ns: dict[tuple[str, int], int] = {}
    for stage, count in enumerate(layers):
        for op in "FIW":
            time = count * costs.layer_ns[op]
            time += costs.embedding_ns.get(op, 0) if stage == 0 else 0
            time += costs.head_ns.get(op, 0) if stage == len(layers) - 1 else 0
            work_ns[op, stage] = time
    return WorkTimes(work_ns, hop_ns)


def choose_cut(
    num_layers: int,
    costs: PartCosts,
    *,
    num_ranks: int,
    num_microbatches: int,
    schedules: Sequence[tuple[str, int]],
    hop_ns: int = 0,
) -> list[Cut]:
    """All cuts of the given schedules, the fastest step first.

    Parameters
    ----------
    num_layers
        Layers of the model, all alike.
    costs
        What a layer, the embedding and the head cost.
    num_ranks, num_microbatches
        p and m.
    schedules
        (name, chunks per rank) of each schedule to try; those that cannot run with p and m are left out.
    hop_ns
        Latency of a hop between ranks.

    Raises
    ------
    InvalidInputError
        If a name is unknown, or no schedule can be cut so.
    """
    layer_ns = costs.total_ns(costs.layer_ns)
    embedding_ns, head_ns = costs.total_ns(costs.embedding_ns), costs.total_ns(costs.head_ns)
    found: set[tuple[str, int, tuple[int, ...]]] = set()
    cuts: list[Cut] = []
    why = ""
    for (name, chunks), embedding_alone, head_alone in product(schedules, (False, True), (False, True)):
        why = find_schedule(name).problem(num_ranks, num_microbatches, chunks) or why
        if find_schedule(name).problem(num_ranks, num_microbatches, chunks):
            continue
        order = make_order(name, num_ranks, num_microbatches, chunks)
        try:
            layers = balance_layers(
                num_layers,
                order.num_stages,
                embedding_ns / layer_ns,
                head_ns / layer_ns,
                placement=order.placement,
                embedding_alone=embedding_alone,
                head_alone=head_alone,
            )
            if (name, chunks, layers) in found:
                continue
            found.add((name, chunks, layers))
            makespan_ns = walk(order, stage_times(layers, costs, hop_ns)).makespan_ns
        except (InvalidInputError, InfeasibleError) as error:
            why = str(error.what)
            continue
        loads = rank_loads(
            layers, order.placement, [layer_ns] * num_layers, embedding_cost=embedding_ns, head_cost=head_ns
        )
        alone = (layers[0] == 0, layers[-1] == 0)
        cuts.append(Cut(name, chunks, *alone, layers, round(max(loads.values())), makespan_ns))
    if not cuts:
        raise InvalidInputError(
            "no schedule can be cut so",
            got=f"{num_layers} layers, p={num_ranks}, m={num_microbatches}: {why}",
            hint="use fewer ranks or chunks, or more layers",
        )
    return sorted(cuts, key=lambda cut: (cut.makespan_ns, cut.schedule, cut.chunks, cut.layers))
