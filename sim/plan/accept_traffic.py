"""What all programs post and wait for, queue by queue: the ground for checks of ranks against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exactmap.sim.plan.accept_queues import Queues
from exactmap.sim.plan.accept_rows import Ints, Rows
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Plan

__all__ = ["Actors", "Traffic", "item_codes", "traffic_of"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Posts and waits of all programs.

    Attributes
    ----------
    op, item, stage, bucket
        [k] of the posts, queue by queue of one program after the other; `item` as `item_codes` numbers it.
    post_number, wait_number, waits_before
        [k] as in `Queues`.
    channels, groups
        (program, number of channel or group) -> its place in these columns.
    num_posts
        [programs] posts of each program, and waits.
    forwards
        For each program the items whose F it runs.
    """

    op: Ints
    item: Ints
    stage: Ints
    bucket: Ints
    post_number: Ints
    wait_number: Ints
    waits_before: Ints
    channels: dict[tuple[int, int], slice]
    groups: dict[tuple[int, int], slice]
    num_posts: list[int]
    forwards: list[Ints]


class Actors:
    """Pipeline ranks of classes of replicas, numbered by class, then rank, and the programs that they run."""

    def __init__(self, plan: Plan) -> None:
        numbers = {program.name: number for number, program in enumerate(plan.programs)}
        own = {(line.pp, line.dp): numbers[line.program] for line in plan.maps}
        self.classes = plan.replica_classes()
        self.num_ranks = plan.mesh.pp
        self.programs = [
            own.get((rank, cls), own[rank, -1]) for cls in self.classes for rank in range(self.num_ranks)
        ]

    def number(self, rank: int, cls: int) -> int:
        """Number of an actor."""
        return self.classes.index(cls) * self.num_ranks + rank


def item_codes(plan: Plan, rows: Rows, found: Ints) -> Ints:
    """Number of each row's item among all items of the plan, by stage, microbatch and slice."""
    train = plan.train
    stage = rows.stage[found].astype(np.int64)
    cut = np.maximum(rows.slice[found], 0)
    return (stage * train.m + rows.microbatch[found]) * train.slices + cut


def traffic_of(plan: Plan, batches: Sequence[tuple[Rows, Queues]]) -> Traffic:
    """Join what was found program by program."""
    channels: dict[tuple[int, int], slice] = {}
    groups: dict[tuple[int, int], slice] = {}
    forwards: list[Ints] = []
    start = first_program = 0
    for rows, queues in batches:
        begins = np.concatenate([[0], queues.ends[:-1]])
        used = np.flatnonzero(queues.ends > begins)
        for program, channel, group, begin, end in zip(
            (rows.queue_program[used] + first_program).tolist(),
            rows.queue_channel[used].tolist(),
            rows.queue_group[used].tolist(),
            (begins[used] + start).tolist(),
            (queues.ends[used] + start).tolist(),
            strict=True,
        ):
            if channel >= 0:
                channels[program, channel] = slice(begin, end)
            elif group >= 0:
                groups[program, group] = slice(begin, end)
        found = rows.of(Op.F)
        codes = item_codes(plan, rows, found)
        cuts = np.searchsorted(rows.program[found], np.arange(1, len(rows.views)))
        forwards += np.split(codes, cuts)
        start += len(queues.posts)
        first_program += len(rows.views)

    def joined(columns: Sequence[Ints]) -> Ints:
        return np.concatenate(columns)

    return Traffic(
        op=joined([rows.op[queues.posts] for rows, queues in batches]),
        item=joined([item_codes(plan, rows, queues.posts) for rows, queues in batches]),
        stage=joined([rows.stage[queues.posts] for rows, queues in batches]),
        bucket=joined([rows.bucket[queues.posts] for rows, queues in batches]),
        post_number=joined([queues.post_number for _, queues in batches]),
        wait_number=joined([queues.wait_number for _, queues in batches]),
        waits_before=joined([queues.waits_before for _, queues in batches]),
        channels=channels,
        groups=groups,
        num_posts=[int(num) for _, queues in batches for num in queues.num_posts.tolist()],
        forwards=forwards,
    )
