"""A program as arrays: kinds, operands, queues, and which wait belongs to which post.

Posts and waits of one queue (a channel's end, a group, the copy queue of a rank) pair up in order: the n-th
wait on a queue awaits its n-th post (plan format, section 3, rule 4). Both orders are found at once by one
stable sort by queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.plan.instruction import CODES, KINDS, POSTS, WAITS, WORK, Op

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan, Program

__all__ = [
    "BUSY_KINDS",
    "KINDS",
    "POST_KINDS",
    "WAIT_KINDS",
    "WORK_KINDS",
    "EncodedProgram",
    "Ints",
    "encode",
]

Ints = NDArray[np.int64]

WORK_KINDS = np.array([op in WORK for op in KINDS])
POST_KINDS = np.array([op in POSTS for op in KINDS])
WAIT_KINDS = np.array([op in WAITS for op in KINDS])
BUSY_KINDS = np.array([op in {Op.F, Op.I, Op.W, Op.B, Op.RC, Op.FB} for op in KINDS])
"""The kinds whose durations make up the period and the bubble."""

_SEND_ENDS = np.isin(np.arange(len(KINDS)), [CODES[op] for op in (Op.SF, Op.SB, Op.WS)])
_RECV_ENDS = np.isin(np.arange(len(KINDS)), [CODES[op] for op in (Op.RF, Op.RB, Op.WR)])
_COPY_ENDS = np.isin(np.arange(len(KINDS)), [CODES[op] for op in (Op.OFF, Op.LD, Op.WOFF, Op.WLD)])
_BUCKET_POSTS = np.isin(np.arange(len(KINDS)), [CODES[op] for op in (Op.AG, Op.RS, Op.AR)])
_MAX_INT16 = 2**15 - 1  # stable sorts of 16-bit integers are radix sorts


@dataclass(frozen=True, slots=True, eq=False)
class EncodedProgram:
    """One program as arrays; `i` counts instructions, `q` posts, `w` waits, each in program order.

    A queue is a number: ``2*channel`` for a channel's sending end, ``2*channel + 1`` for its receiving end,
    then one per group, then the copy queue (`num_queues - 1`).
    """

    program: Program
    num_queues: int
    kind: NDArray[np.int8]  #: [i] index into `KINDS`
    stage: Ints  #: [i], -1 where the instruction has none
    bucket: Ints  #: [i], -1 where the instruction has none
    queue: Ints  #: [i], -1 for works and notes
    post_at: Ints  #: [q] instruction of each post
    wait_at: Ints  #: [w] instruction of each wait
    wait_of_post: Ints  #: [q] its wait, as a number of wait
    post_of_wait: Ints  #: [w] its post, as a number of post
    order_of_post: Ints  #: [q] how many posts of its queue stand before it
    bucket_before: Ints  #: [q] the post before it on the same bucket, as a number of post, or -1

    @property
    def num_instructions(self) -> int:
        """Number of instructions, END included."""
        return len(self.kind)


def encode(plan: Plan, program: Program) -> EncodedProgram:
    """Turn a program into arrays and pair its posts with its waits.

    Raises
    ------
    InvalidInputError
        If a queue is not declared, or posts and waits of a queue do not pair up in order. Whether the plan is
        valid beyond that is for `exactmap.sim.plan` to say.
    """
    table = program.table
    kind = table.op
    queue = _queues(plan, program)
    stage, bucket = table.stage.astype(np.int64), table.bucket.astype(np.int64)
    num_queues = 2 * len(plan.channels) + len(plan.groups) + 1

    post_at, wait_at = np.flatnonzero(POST_KINDS[kind]), np.flatnonzero(WAIT_KINDS[kind])
    of_posts, of_waits = queue[post_at], queue[wait_at]
    by_post, by_wait = _stable_order(of_posts, num_queues), _stable_order(of_waits, num_queues)
    if not np.array_equal(of_posts[by_post], of_waits[by_wait]):
        raise _unpaired(plan, program, queue, post_at, wait_at)
    late = post_at[by_post] > wait_at[by_wait]
    if late.any():
        raise _fail(program, int(wait_at[by_wait][late].min()), "a wait stands before its post")
    wait_of_post, post_of_wait = np.empty_like(by_post), np.empty_like(by_post)
    wait_of_post[by_post], post_of_wait[by_wait] = by_wait, by_post

    counts = np.bincount(of_posts, minlength=num_queues)
    order_of_post = np.empty_like(by_post)
    order_of_post[by_post] = np.arange(len(by_post)) - np.repeat(np.cumsum(counts) - counts, counts)
    return EncodedProgram(
        program,
        num_queues,
        kind,
        stage,
        bucket,
        queue,
        post_at,
        wait_at,
        wait_of_post,
        post_of_wait,
        order_of_post,
        _bucket_before(kind, stage, bucket, post_at),
    )


def _stable_order(queue: Ints, num_queues: int) -> Ints:
    return np.argsort(queue.astype(np.int16 if num_queues <= _MAX_INT16 else np.int32), kind="stable")


def _queues(plan: Plan, program: Program) -> Ints:
    """Queue number of each instruction."""
    table = program.table
    kind = table.op
    num_channels = len(plan.channels)
    channels = {channel.name: 2 * index for index, channel in enumerate(plan.channels)}
    groups = {group.name: 2 * num_channels + index for index, group in enumerate(plan.groups)}
    wants_channel, recv_ends = _SEND_ENDS[kind] | _RECV_ENDS[kind], _RECV_ENDS[kind]
    wants_any = POST_KINDS[kind] | WAIT_KINDS[kind]
    # Channels and groups have name spaces of their own; the last entry is that of rows without a name.
    as_channel, as_group = (
        np.array([*(numbers.get(name, -1) for name in table.queues), -1], dtype=np.int64)
        for numbers in (channels, groups)
    )
    queue = np.where(wants_channel, as_channel[table.queue], as_group[table.queue])
    queue[_COPY_ENDS[kind]] = 2 * num_channels + len(plan.groups)
    wrong = wants_any & (queue < 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        named = int(table.queue[at])
        got = repr(table.queues[named] if named >= 0 else "")
        raise _fail(program, at, "the plan declares no such channel or group", got=got)
    queue[recv_ends] += 1
    queue[~wants_any] = -1
    return queue


def _bucket_before(kind: NDArray[np.int8], stage: Ints, bucket: Ints, post_at: Ints) -> Ints:
    """For each post on a bucket the post before it on that bucket."""
    before = np.full(len(post_at), -1, dtype=np.int64)
    on_bucket = np.flatnonzero(_BUCKET_POSTS[kind[post_at]])
    if len(on_bucket) > 1:
        at = post_at[on_bucket]
        key = stage[at] * (int(bucket.max()) + 1) + bucket[at]
        by_key = np.argsort(key, kind="stable")
        same = key[by_key][1:] == key[by_key][:-1]
        before[on_bucket[by_key[1:][same]]] = on_bucket[by_key[:-1][same]]
    return before


def _unpaired(plan: Plan, program: Program, queue: Ints, post_at: Ints, wait_at: Ints) -> InvalidInputError:
    size = 2 * len(plan.channels) + len(plan.groups) + 1
    posts = np.bincount(queue[post_at], minlength=size)
    waits = np.bincount(queue[wait_at], minlength=size)
    at = int(np.flatnonzero(posts != waits)[0])
    last = int(np.flatnonzero(queue == at)[-1])
    return _fail(
        program,
        last,
        "posts and waits of a queue do not pair up",
        got=f"{waits[at]} waits",
        expected=f"{posts[at]}",
    )


def _fail(
    program: Program, index: int, what: str, *, got: str | None = None, expected: str | None = None
) -> InvalidInputError:
    line = program.lines[index] if program.lines else None
    field = f"program {program.name}, instruction {index}"
    hint = "check the plan: exactmap check PLAN"
    return InvalidInputError(what, where=Place(line=line, field=field), got=got, expected=expected, hint=hint)
