"""The fast check: proves that a plan is valid, column by column, or says that it cannot.

What it accepts, the exact checks (`exactmap.sim.plan.check`) accept. Where it cannot vouch for a plan, these
have the word, and name the code and the line. It does not cover passes in parts (with A2A and KV between) and
pools that overlap each other; all else that is valid it accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from exactmap.sim.plan.accept_buckets import check_buckets_and_norms, sharded_zeros
from exactmap.sim.plan.accept_games import check_games
from exactmap.sim.plan.accept_items import check_items, check_slot_letters
from exactmap.sim.plan.accept_pairs import check_agreement
from exactmap.sim.plan.accept_queues import Queues, check_queues
from exactmap.sim.plan.accept_rows import Rows, Unproven, need, rows_of_programs
from exactmap.sim.plan.accept_slots import check_slots
from exactmap.sim.plan.accept_traffic import Actors, traffic_of
from exactmap.sim.plan.plan import Plan, Program
from exactmap.sim.plan.program_map import program_ranks
from exactmap.sim.plan.rank_view import PlanIndex

__all__ = ["accepts"]

_BATCH_ROWS = 1 << 15  # columns that fit a core's cache
_MOST_CELLS = 1 << 22  # of a batch's table of stages


def accepts(plan: Plan) -> bool:
    """Whether a plan with valid declarations is proven to pass phases 3 to 5 of the checks.

    Parameters
    ----------
    plan
        A plan that passes phase 2.

    Returns
    -------
    bool
        False says nothing.
    """
    try:
        _prove(plan)
    except Unproven:
        return False
    return True


def _prove(plan: Plan) -> None:
    need(not any(stage.parts for stage in plan.stages) and not _pools_overlap(plan))
    need(len(plan.programs) * len(plan.stages) <= _MOST_CELLS << 6)
    index = PlanIndex(plan)
    ranks = program_ranks(plan)
    found: list[tuple[Rows, Queues]] = []
    for batch in _batches(plan):
        rows = rows_of_programs(index, batch, [ranks[program.name] for program in batch])
        check_slot_letters(plan, rows, sharded_zeros(plan, rows))
        queues = check_queues(index, rows)
        passes, lives = check_items(plan, rows)
        lives += check_buckets_and_norms(plan, rows, queues, passes)
        check_slots(rows, lives)
        found.append((rows, queues))
    actors = Actors(plan)
    traffic = traffic_of(plan, found)
    check_agreement(plan, actors, traffic)
    check_games(plan, actors, traffic)


def _batches(plan: Plan) -> Iterator[list[Program]]:
    """Programs in order, a few at a time."""
    batch: list[Program] = []
    num_rows = 0
    for program in plan.programs:
        try:
            num_rows += len(program.table)
        except (KeyError, OverflowError, ValueError) as error:  # objects that no text could hold
            raise Unproven from error
        batch.append(program)
        if num_rows >= _BATCH_ROWS or (len(batch) + 1) * len(plan.stages) > _MOST_CELLS:
            yield batch
            batch, num_rows = [], 0
    if batch:
        yield batch


def _pools_overlap(plan: Plan) -> bool:
    """Whether two pools of one rank share bytes."""
    extents = sorted(
        (pool.pp, pool.at, pool.at + pool.num * pool.bytes)
        for pool in plan.pools
        if pool.letter != "o" and pool.num * pool.bytes
    )
    return any(rank == other and start < end for (rank, _, end), (other, start, _) in pairwise(extents))
