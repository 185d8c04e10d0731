"""Fast check of queues: each wait is that of its post, channels and groups are used where the rank has them.

What the ranks' queues hold is kept for the checks of ranks against each other (`accept_pairs`,
`accept_games`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from exactmap.sim.plan.accept_rows import IS_POST, IS_WAIT, Ints, Rows, need
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.rank_view import PlanIndex

__all__ = ["Queues", "check_queues"]

_WAIT_OF: Final = np.full(len(KINDS), -1, dtype=np.int8)
for _wait, _posts in {
    Op.WS: (Op.SF, Op.SB),
    Op.WR: (Op.RF, Op.RB),
    Op.WC: (Op.AG, Op.RS, Op.AR, Op.NORM, Op.CHK),
    Op.WOFF: (Op.OFF,),
    Op.WLD: (Op.LD,),
}.items():
    _WAIT_OF[[CODES[_post] for _post in _posts]] = CODES[_wait]


@dataclass(frozen=True, slots=True)
class Queues:
    """Posts and waits of some programs, queue by queue, in posting order.

    Attributes
    ----------
    posts, waits
        [k] rows; a post and its wait stand at one place.
    post_number, wait_number
        [k] how many posts, waits of the program stand before.
    waits_before
        [k] how many waits of the program stand before the post.
    ends
        [q] where each queue ends in these columns; it starts where the queue before ends.
    """

    posts: Ints
    waits: Ints
    post_number: Ints
    wait_number: Ints
    waits_before: Ints
    ends: Ints
    num_posts: Ints  #: by program; as many waits


def check_queues(index: PlanIndex, rows: Rows) -> Queues:
    """Check queues.

    Raises
    ------
    Unproven
        If a rule does not hold.
    """
    plan = index.plan
    is_post, is_wait = IS_POST[rows.op], IS_WAIT[rows.op]
    posts, waits = np.flatnonzero(is_post), np.flatnonzero(is_wait)
    need(len(posts) == len(waits))
    num_queues = len(rows.queue_program)
    small = np.uint16 if num_queues < 1 << 16 else np.int64  # numpy sorts 16 bits by counting
    post_order = np.argsort(rows.queue[posts].astype(small), kind="stable")
    wait_order = np.argsort(rows.queue[waits].astype(small), kind="stable")
    post_rows, wait_rows = posts[post_order], waits[wait_order]
    need((post_rows < wait_rows).all() and (rows.at[post_rows] < rows.at[wait_rows]).all())
    for column in (rows.queue, rows.stage, rows.microbatch, rows.slice, rows.bucket):
        need(np.array_equal(column[post_rows], column[wait_rows]))
    need(np.array_equal(_WAIT_OF[rows.op[post_rows]], rows.op[wait_rows]))

    # All posts before a program's END are waited: sums over rows start anew at each program.
    waiting = np.cumsum(is_post.astype(np.int32) - is_wait)
    need(not len(waiting) or int(waiting.max()) <= plan.limit)

    num_programs = len(rows.views)
    num_posts = np.bincount(rows.program[posts], minlength=num_programs)
    need(np.array_equal(num_posts, np.bincount(rows.program[waits], minlength=num_programs)))
    first = np.cumsum(num_posts) - num_posts
    passed = np.cumsum(is_wait)
    _check_channel_ends(plan, rows, np.concatenate([rows.of(op) for op in (Op.SF, Op.SB, Op.RF, Op.RB)]))
    _check_members(index, rows, num_queues)
    of_post = rows.program[post_rows]
    return Queues(
        posts=post_rows,
        waits=wait_rows,
        post_number=post_order - first[of_post],
        wait_number=wait_order - first[of_post],
        waits_before=passed[post_rows] - first[of_post],
        ends=np.cumsum(np.bincount(rows.queue[post_rows], minlength=num_queues)),
        num_posts=num_posts,
    )


def _check_channel_ends(plan: Plan, rows: Rows, found: Ints) -> None:
    """Messages use channels of their class, at the rank's own end, to a rank of the neighbour stage."""
    if not len(found):
        return
    num_stages = len(plan.stages)
    key = rows.queue[found].astype(np.int64) * num_stages + rows.stage[found]
    key = np.unique(key * len(KINDS) + rows.op[found])
    ends, ops = np.divmod(key, len(KINDS))
    queues, stages = np.divmod(ends, num_stages)
    channels = rows.queue_channel[queues].tolist()
    programs = rows.queue_program[queues].tolist()
    for op, number, program, stage in zip(ops.tolist(), channels, programs, stages.tolist(), strict=True):
        kind, channel = KINDS[op], plan.channels[number]
        sends = kind in {Op.SF, Op.SB}
        forward = kind in {Op.SF, Op.RF}
        here, there = (channel.src, channel.dst) if sends else (channel.dst, channel.src)
        neighbour = stage + (1 if forward == sends else -1)
        need((channel.cls == "F") == forward and rows.views[program].rank == here)
        need(0 <= neighbour < num_stages and there in plan.place[neighbour])


def _check_members(index: PlanIndex, rows: Rows, num_queues: int) -> None:
    """Each rank is a member of the groups that it uses."""
    plan = index.plan
    used = np.flatnonzero(
        (rows.queue_group >= 0) & (np.bincount(rows.queue[rows.queue >= 0], minlength=num_queues) > 0)
    )
    for queue in used.tolist():
        members = index.members[plan.groups[rows.queue_group[queue]].name]
        need(members is None or rows.views[rows.queue_program[queue]].rank in members)
