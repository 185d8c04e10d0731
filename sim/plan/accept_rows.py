"""The rows of some programs, one program after the other, as one set of columns; braids are cut into members.

First step of the fast check (`exactmap.sim.plan.accept`): shapes of instructions, names of stages and queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, KINDS, PASSES, POSTS, WAITS, Op
from exactmap.sim.plan.plan import Program
from exactmap.sim.plan.rank_view import PlanIndex, RankView
from exactmap.sim.plan.table import POOL_LETTERS, InstructionTable

__all__ = ["IS_POST", "IS_WAIT", "NEVER", "Flags", "Ints", "Rows", "Unproven", "need", "rows_of_programs"]

Ints: TypeAlias = NDArray[np.integer[Any]]
Flags: TypeAlias = NDArray[np.bool_]

NEVER: Final = np.int32(np.iinfo(np.int32).max)
"""Position of an instruction that does not exist."""

_CHANNEL_OPS: Final = (Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR)
_COPY_OPS: Final = (Op.OFF, Op.LD, Op.WOFF, Op.WLD)
_ITEM_OPS: Final = (*PASSES, *_CHANNEL_OPS, *_COPY_OPS, Op.LF, Op.LB)
_BUCKET_OPS: Final = (Op.ZERO, Op.OPT, Op.PV, Op.UNDO, Op.AG, Op.RS, Op.AR, Op.FREE)
_QUEUE_OPS: Final = (*_CHANNEL_OPS, Op.AG, Op.RS, Op.AR, Op.NORM, Op.CHK, Op.WC)
_COLUMNS: Final = ("op", "stage", "microbatch", "slice", "bucket", "part", "queue", "phase", "slots")


def _flags(*ops: Op) -> Flags:
    flags = np.zeros(len(KINDS), dtype=np.bool_)
    flags[[CODES[op] for op in ops]] = True
    return flags


IS_POST: Final = _flags(*POSTS)
IS_WAIT: Final = _flags(*WAITS)
_IS_ITEM: Final = _flags(*_ITEM_OPS)
_HAS_BUCKET: Final = _flags(*_BUCKET_OPS)
_HAS_STAGE: Final = _flags(*_ITEM_OPS, *_BUCKET_OPS)
_HAS_QUEUE: Final = _flags(*_QUEUE_OPS)
_IS_CHANNEL: Final = _flags(*_CHANNEL_OPS)
_IS_COPY: Final = _flags(*_COPY_OPS)
_IS_PASS: Final = _flags(*PASSES)
_FB: Final = CODES[Op.FB]
_WC: Final = CODES[Op.WC]
_END: Final = CODES[Op.END]
_UNCOVERED: Final = [CODES[op] for op in (Op.A2A_D, Op.A2A_C, Op.KV)]


class Unproven(Exception):  # noqa: N818 - no error: the exact walk has the word
    """The fast check cannot vouch for the plan, which may be valid or not."""


def need(holds: bool | np.bool_) -> None:
    """Go on only if a condition of a valid plan holds."""
    if not holds:
        raise Unproven


@dataclass(slots=True)
class Rows:
    """Columns of n rows (as in `InstructionTable`), and what rows mean on their ranks.

    Attributes
    ----------
    program, at
        [n] number of the program among those given; position (members of a braid share one).
    item
        [n] number of the item on its program, meaningless where a row names none.
    queue
        [n] number of the queue; -1 for none.
    views
        Each program's rank.
    stages
        [l] stage of each (program, stage on its rank); items are numbered by this, microbatch, slice.
    queue_program, queue_channel, queue_group
        [q] program of a queue; number of its channel, of its group (-1: it is none).
    """

    op: Ints
    stage: Ints
    microbatch: Ints
    slice: Ints
    bucket: Ints
    slots: Ints
    program: Ints
    at: Ints
    item: Ints
    queue: Ints
    views: list[RankView]
    stages: Ints
    local_stage: Ints  #: [programs, stages] number in `stages`, -1: not here
    queue_program: Ints
    queue_channel: Ints
    queue_group: Ints
    by_op: list[Ints]  #: kind code -> its rows, ascending

    def of(self, op: Op) -> Ints:
        """Rows of one kind, ascending."""
        return self.by_op[CODES[op]]


def rows_of_programs(index: PlanIndex, programs: Sequence[Program], ranks: Sequence[int]) -> Rows:
    """Lay programs out as rows.

    Raises
    ------
    Unproven
        If an instruction has not the shape that the grammar gives its kind, names a stage, microbatch or
        slice that its rank does not have, or needs parts of passes.
    """
    tables = [program.table for program in programs]
    lengths = [len(table) for table in tables]
    for table in tables:
        need(len(table) > 0 and table.op[-1] == _END and len(set(table.queues)) == len(table.queues))
    joined = _joined(tables)
    program = np.repeat(np.arange(len(tables), dtype=np.int32), lengths)
    at = np.arange(len(program), dtype=np.int32)
    if any(table.members is not None for table in tables) or (joined["op"] == _FB).any():
        joined, source = _without_braids(tables, joined)
        program, at = program[source], at[source]
    _check_shapes(joined)
    views = [RankView(index, rank) for rank in ranks]
    stages, local_stage, item = _items(index, views, joined, program)
    need(np.array_equal(program[joined["op"] == _END], np.arange(len(tables))))
    queue, of_program, channel, group = _queues(index, tables, joined, program)
    if int(at[-1]) + 1 < len(at):
        _check_braids(at, item // index.plan.train.slices)
    order = np.argsort(joined["op"], kind="stable")
    ends = np.cumsum(np.bincount(joined["op"], minlength=len(KINDS))).tolist()
    return Rows(
        op=joined["op"],
        stage=joined["stage"],
        microbatch=joined["microbatch"],
        slice=joined["slice"],
        bucket=joined["bucket"],
        slots=joined["slots"],
        program=program,
        at=at,
        item=item,
        queue=queue,
        views=views,
        stages=stages,
        local_stage=local_stage,
        queue_program=of_program,
        queue_channel=channel,
        queue_group=group,
        by_op=[order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)],
    )


def _joined(tables: Sequence[InstructionTable]) -> dict[str, Ints]:
    if len(tables) == 1:
        return {name: getattr(tables[0], name) for name in _COLUMNS}
    return {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}


def _without_braids(
    tables: Sequence[InstructionTable], joined: dict[str, Ints]
) -> tuple[dict[str, Ints], Ints]:
    """Columns with members in place of braids, and the row that each came from."""
    is_braid = joined["op"] == _FB
    num_rows = len(is_braid)
    first = np.concatenate([table.first_member for table in tables])
    counts = np.concatenate([table.num_members for table in tables])
    inner = [table.members or InstructionTable.empty(0) for table in tables]
    base = np.repeat(np.cumsum([0, *(len(table) for table in inner[:-1])]), [len(table) for table in tables])
    room = np.repeat([len(table) for table in inner], [len(table) for table in tables])
    need((counts[is_braid] > 0).all() and (first[is_braid] >= 0).all())
    need((first + counts <= room)[is_braid].all())
    for name in ("stage", "microbatch", "slice", "bucket", "part", "queue"):
        need((joined[name][is_braid] == -1).all())
    need((joined["phase"][is_braid] == 0).all() and (joined["slots"][is_braid] == -1).all())
    repeats = np.where(is_braid, counts, 1)
    source = np.repeat(np.arange(num_rows), repeats)
    within = np.arange(len(source)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    taken = np.where(is_braid[source], num_rows + base[source] + first[source] + within, source)
    members = _joined(inner)
    need(_IS_PASS[members["op"]].all())
    return {name: np.concatenate([joined[name], members[name]])[taken] for name in _COLUMNS}, source


def _check_shapes(joined: dict[str, Ints]) -> None:
    """Each kind has the operands of its grammar, and no others; WC is compared with its post later."""
    op = joined["op"]
    need(((op >= 0) & (op < len(KINDS))).all())
    need(not np.isin(op, _UNCOVERED).any())
    need((joined["part"] == -1).all() and (joined["phase"] == 0).all())
    for name in ("stage", "microbatch", "slice", "bucket", "queue"):
        need((joined[name] >= -1).all())
    other = op != _WC
    for name, flags in (("stage", _HAS_STAGE), ("microbatch", _IS_ITEM), ("bucket", _HAS_BUCKET)):
        need(((joined[name] >= 0) == flags[op])[other].all())
    need(((joined["queue"] >= 0) == _HAS_QUEUE[op]).all())


def _items(
    index: PlanIndex, views: Sequence[RankView], joined: dict[str, Ints], program: Ints
) -> tuple[Ints, Ints, Ints]:
    """Stages of all ranks, their numbers by (program, stage), and each row's item."""
    train, num_stages = index.plan.train, len(index.plan.stages)
    need(train.m >= 1 and train.slices >= 1)
    here = [index.stages[view.rank] for view in views]
    stages = np.array([stage for placed in here for stage in placed], dtype=np.int32)
    local_stage = np.full((len(views), num_stages), -1, dtype=np.int32)
    owners = np.repeat(np.arange(len(views)), [len(placed) for placed in here])
    local_stage[owners, stages] = np.arange(len(stages))
    op, stage, cut = joined["op"], joined["stage"], joined["slice"]
    need(len(stages) * train.m * train.slices <= 16 * len(op) + 1024)  # else most items do not run here
    need((stage < num_stages).all())
    is_item = _IS_ITEM[op]
    local = local_stage[program, stage]  # rows without a stage read the last one's
    names_stage = stage >= 0
    need((local[names_stage] >= 0).all())
    need((joined["microbatch"] < train.m).all())
    if train.slices == 1:
        need((cut == -1).all())
        cut = np.zeros_like(cut)
    else:
        need(((cut >= 0) == is_item)[op != _WC].all() and (cut < train.slices).all())
    item = (local * train.m + joined["microbatch"]) * train.slices + cut
    return stages, local_stage, item.astype(np.int64, copy=False)


def _queues(
    index: PlanIndex, tables: Sequence[InstructionTable], joined: dict[str, Ints], program: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Number of each row's queue; program, channel and group of each queue.

    A name is two queues, as that of a channel and that of a group; behind them each rank's copies.
    """
    counts = [len(table.queues) for table in tables]
    starts = np.cumsum([0, *counts[:-1]])
    num_names = sum(counts)
    channel_numbers = {channel.name: number for number, channel in enumerate(index.plan.channels)}
    group_numbers = {group.name: number for number, group in enumerate(index.plan.groups)}
    channel = np.full(2 * num_names + len(tables), -1, dtype=np.int32)
    group = channel.copy()
    names = [name for table in tables for name in table.queues]
    channel[: 2 * num_names : 2] = [channel_numbers.get(name, -1) for name in names]
    group[1 : 2 * num_names : 2] = [group_numbers.get(name, -1) for name in names]
    of_program = np.concatenate([np.repeat(np.arange(len(tables)), counts).repeat(2), np.arange(len(tables))])
    op, queue = joined["op"], joined["queue"]
    need((queue < np.array(counts)[program]).all())
    number = 2 * (queue + starts[program]) + ~_IS_CHANNEL[op]
    number[queue < 0] = -1
    copies = _IS_COPY[op]
    if copies.any():
        number[copies] = 2 * num_names + program[copies]
    named = number[queue >= 0]
    need(((channel[named] >= 0) | (group[named] >= 0)).all())
    return number, of_program, channel, group


def _check_braids(at: Ints, owner: Ints) -> None:
    """Members of one braid are of different (stage, microbatch), as `owner` numbers these."""
    shared = np.flatnonzero(at[1:] == at[:-1])
    rows = np.union1d(shared, shared + 1)
    key = at[rows].astype(np.int64) * (int(owner.max()) + 1) + owner[rows]
    need(len(np.unique(key)) == len(key))


assert len(POOL_LETTERS) == 8, "patterns of slots are bytes"
