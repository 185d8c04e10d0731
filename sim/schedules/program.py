"""One rank's program: works, posts, waits and notes with their slots, as columns.

Everything gets a key (`units`) and is sorted once. Waits for sends and copies are put off until a buffer
takes the slot that they free, or to the end: a rank never waits for one earlier than it must.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.schedules.bucket_lives import BucketLives
from exactmap.sim.schedules.draft import Draft
from exactmap.sim.schedules.gradients import Gradients
from exactmap.sim.schedules.openings import Openings
from exactmap.sim.schedules.posts import Traffic
from exactmap.sim.schedules.slots import Colouring, colour
from exactmap.sim.schedules.units import (
    BEFORE,
    COPY,
    NEVER,
    NOTE,
    WAIT_RECEIVE,
    WORK,
    Ints,
    Units,
    grouped,
    key,
)

__all__ = ["ProgramBuilder"]

_F, _I, _B, _RC, _OFF, _LD = (CODES[op] for op in (Op.F, Op.I, Op.B, Op.RC, Op.OFF, Op.LD))


class ProgramBuilder:
    """Makes the programs of all ranks of one order.

    Parameters
    ----------
    units, traffic
        The walked order, and what moves.
    gradients, openings
        Buckets, and when they open and close.
    """

    def __init__(self, units: Units, traffic: Traffic, gradients: Gradients, openings: Openings) -> None:
        self.units, self.traffic = units, traffic
        ranks = np.arange(units.order.num_ranks + 1)
        messages = traffic.messages
        self._sent, self._received = grouped(messages.src), grouped(messages.dst)
        self._sent_ends = np.searchsorted(messages.src[self._sent], ranks)
        self._received_ends = np.searchsorted(messages.dst[self._received], ranks)
        self._kept_ends = np.searchsorted(traffic.hand_overs.row, units.first_row)
        groups = [group.name for group in gradients.groups]
        self.queues = (*(route.channel for route in traffic.routes), *groups)
        group_queue = {name: len(traffic.routes) + place for place, name in enumerate(groups)}
        self.buckets = BucketLives(units, traffic.closers, gradients, openings, group_queue)

    def build(self, rank: int) -> tuple[InstructionTable, dict[str, int]]:
        """The program of one rank, and how many slots each pool needs."""
        program = _RankProgram(self, rank)
        program.add_messages(
            self._sent[self._sent_ends[rank] : self._sent_ends[rank + 1]],
            self._received[self._received_ends[rank] : self._received_ends[rank + 1]],
            np.arange(self._kept_ends[rank], self._kept_ends[rank + 1]),
        )
        program.add_stashes()
        members = program.add_passes()
        program.num_slots.update(self.buckets.add(program.draft, rank))
        slots = {letter: number for letter, number in program.num_slots.items() if number}
        return program.draft.table(self.queues, members), slots


@dataclass(slots=True, eq=False)
class _Stashes:
    """Lives of the buffers a and w of one rank: those of passes, then those that come back from the host."""

    rows: Ints
    begin_keys: Ints
    away: NDArray[np.bool_]  #: ends with its OFF


class _RankProgram:
    """One rank's program as it grows. Rows are places among the rank's works."""

    def __init__(self, builder: ProgramBuilder, rank: int) -> None:
        self.units, self.traffic, self.rank = builder.units, builder.traffic, rank
        units, rows = self.units, self.units.rows(rank)
        self.first_row = rows.start
        self.op, self.item, self.unit = units.op[rows], units.item[rows], units.unit[rows]
        self.columns: dict[str, Ints] = {"stage": units.stage[rows], "microbatch": units.microbatch[rows]}
        if units.order.num_slices > 1:
            self.columns["slice"] = units.cut[rows]
        self.is_copy = (self.op == _OFF) | (self.op == _LD)
        self.draft = Draft()
        self.num_slots: dict[str, int] = {}
        self.named: dict[str, Ints] = {}
        """Pool letter -> slot that each row names, -1: none."""

    def name(self, letter: str, rows: Ints, slots: Ints) -> None:
        """Let passes name slots."""
        named = self.named.setdefault(letter, np.full(len(self.op), -1, dtype=np.int64))
        named[rows] = slots

    def row_columns(self, rows: Ints) -> dict[str, Ints]:
        """Stage, microbatch and, if there are several, slice of some rows."""
        return {name: column[rows] for name, column in self.columns.items()}

    def item_columns(self, items: Ints) -> dict[str, Ints]:
        """Stage, microbatch and, if there are several, slice of some items."""
        order = self.units.order
        pairs, cuts = (items, None) if order.num_slices == 1 else np.divmod(items, order.num_slices)
        stages, microbatches = np.divmod(pairs, order.num_microbatches)
        columns = {"stage": stages, "microbatch": microbatches}
        return columns if cuts is None else columns | {"slice": cuts}

    def add_messages(self, sent: Ints, received: Ints, kept: Ints) -> None:
        """Posts, waits and hand-overs; slots of everything that passes between stages (pool h)."""
        units, messages, hand_overs = self.units, self.traffic.messages, self.traffic.hand_overs
        sent_rows = messages.row[sent] - self.first_row
        kept_rows = hand_overs.row[kept] - self.first_row
        targets = messages.target[received]
        begin_keys = np.concatenate(
            (
                messages.receive_key[received],
                key(self.unit[sent_rows], WORK),
                key(self.unit[kept_rows], WORK),
            )
        )
        wait_keys = messages.wait_send_key[sent]
        end_keys = np.concatenate(
            (
                key(units.last_unit[targets], WORK),
                wait_keys,
                key(units.last_unit[hand_overs.target[kept]], WORK),
            )
        )
        colouring = colour(begin_keys, end_keys)
        self.num_slots["h"] = colouring.num_slots
        receive_slots, *made = np.split(colouring.slot, (len(received), len(received) + len(sent)))
        self.name("h", sent_rows, made[0])
        self.name("h", kept_rows, made[1])

        add = self.draft.add
        here = self.item_columns(targets) | {"queue": messages.route[received]}
        ops = np.where(messages.backward[received], CODES[Op.RB], CODES[Op.RF])
        add(messages.receive_key[received], ops, here, {"h": receive_slots})
        add(messages.wait_receive_key[received], CODES[Op.WR], here)
        here = self.row_columns(sent_rows) | {"queue": messages.route[sent]}
        ops = np.where(messages.backward[sent], CODES[Op.SB], CODES[Op.SF])
        add(messages.send_key[sent], ops, here)
        # Lives that end with a wait for a send, in the order in which they end: that of the waits.
        lives = colouring.by_end[colouring.by_end >= len(received)]
        lives = lives[lives < len(received) + len(sent)]
        wanted = colouring.wanted_key[lives]
        at_end = key(units.num_units(self.rank) + 1, NOTE)
        keys = np.where(wanted == NEVER, at_end, wanted - BEFORE)
        add(keys, CODES[Op.WS], {name: column[lives - len(received)] for name, column in here.items()})
        ops = np.where(hand_overs.backward[kept], CODES[Op.LB], CODES[Op.LF])
        add(key(self.unit[kept_rows] + 1, NOTE, kept_rows), ops, self.row_columns(kept_rows))

    def add_stashes(self) -> None:
        """Slots of what passes leave for later ones (pools a, w, g, k), and copies to and from the host."""
        units, op, item = self.units, self.op, self.item
        makes = ((op == _F) & (units.again_unit[item] < 0)) | (op == _RC)
        rows = np.flatnonzero(makes)
        loads = np.flatnonzero(op == _LD)
        stashes = _Stashes(
            np.concatenate((rows, loads)),
            np.concatenate((key(self.unit[rows], WORK), self.copy_keys(loads))),
            np.concatenate((units.off_row[item[rows]] >= 0, np.zeros(len(loads), dtype=np.bool_))),
        )
        leave_keys = self.leave_keys(rows[stashes.away[: len(rows)]])
        lives: dict[str, Colouring] = {}
        split = bool((op == _I).any())
        for letter, last in (("a", units.backward_unit), ("w", units.last_unit)):
            if letter == "w" and not split:
                lives["w"] = lives["a"]
            else:
                end_keys = key(last[item[stashes.rows]], WORK)
                end_keys[stashes.away] = leave_keys
                lives[letter] = colour(stashes.begin_keys, end_keys)
            self.num_slots[letter] = lives[letter].num_slots
            self.name(letter, stashes.rows, lives[letter].slot)
        rows = np.flatnonzero(op == _I)
        self.name_lives("g", rows, units.last_unit)
        if units.order.num_slices > 1:
            self.name_lives(
                "k", np.flatnonzero((op == _F) & (self.columns["slice"] == 0)), units.backward_unit
            )
        if self.is_copy.any():
            wanted = np.minimum(lives["a"].wanted_key, lives["w"].wanted_key)
            self.add_copies(stashes.rows[stashes.away], wanted[stashes.away])

    def name_lives(self, letter: str, rows: Ints, last: Ints) -> None:
        """Slots that live from some passes to the `last` units of their items."""
        if len(rows):
            colouring = colour(key(self.unit[rows], WORK), key(last[self.item[rows]], WORK))
            self.num_slots[letter] = colouring.num_slots
            self.name(letter, rows, colouring.slot)

    def copy_keys(self, rows: Ints) -> Ints:
        """Where copies are posted."""
        return key(self.unit[rows], COPY, rows)

    def leave_keys(self, rows: Ints) -> Ints:
        """Where, at the earliest, one may wait for the OFF of the stashes that `rows` make.

        In the walk the copy is over there; but the stash has left, at the latest, before it is brought back.
        """
        units = self.units
        off = units.off_row[self.item[rows]]
        load_rows = units.load_row[self.item[rows]] - self.first_row
        ends = units.end_ns[self.rank]
        gap = np.minimum(np.searchsorted(ends, units.made_ns[off]) + 1, len(ends))
        gap = np.maximum(gap, units.unit[off])
        return np.minimum(key(gap, WAIT_RECEIVE), self.copy_keys(load_rows) - BEFORE)

    def add_copies(self, makers: Ints, wanted: Ints) -> None:
        """Copies and their waits, all in one queue.

        `wanted` says where the slots of the stashes that `makers` made are wanted again.
        """
        units = self.units
        copies = np.flatnonzero(self.is_copy)
        leaves = self.op[copies] == _OFF
        items = self.item[copies]
        deadline = np.empty(len(self.op), dtype=np.int64)
        deadline[units.off_row[self.item[makers]] - self.first_row] = wanted
        keys = self.copy_keys(copies)
        loads = units.load_row[items] - self.first_row
        until = np.where(
            leaves,
            np.minimum(deadline[copies], self.copy_keys(loads)),
            key(units.backward_unit[items], WORK),
        )
        # Waits stand in the order of their posts: none later than one whose post came after its own.
        wait_keys = np.minimum.accumulate(until[::-1])[::-1] - BEFORE
        wait_of = np.empty(len(self.op), dtype=np.int64)
        wait_of[copies] = wait_keys
        hosted = colour(keys[leaves], wait_of[loads[leaves]])
        self.num_slots["o"] = hosted.num_slots
        add, back = self.draft.add, copies[~leaves]
        add(keys[leaves], _OFF, self.row_columns(copies[leaves]), {"o": hosted.slot})
        slots = {letter: self.named[letter][back] for letter in "aw"}
        add(keys[~leaves], _LD, self.row_columns(back), slots)
        waits = np.where(leaves, CODES[Op.WOFF], CODES[Op.WLD])
        add(wait_keys, waits, self.row_columns(copies))

    def add_passes(self) -> InstructionTable | None:
        """Passes, one by one or as braids; returns the members of the braids."""
        passes = np.flatnonzero(~self.is_copy)
        unit = self.unit[passes]
        sizes = np.bincount(unit, minlength=self.units.num_units(self.rank))
        alone = sizes[unit] == 1
        self._add_rows(self.draft, passes[alone])
        if alone.all():
            return None
        braids = np.flatnonzero(sizes > 1)
        ends = np.cumsum(sizes[braids])
        columns = {"first_member": ends - sizes[braids], "num_members": sizes[braids]}
        self.draft.add(key(braids, WORK), CODES[Op.FB], columns)
        members = Draft()
        self._add_rows(members, passes[~alone])
        return members.table((), None)

    def _add_rows(self, draft: Draft, rows: Ints) -> None:
        slots = {letter: named[rows] for letter, named in self.named.items()}
        draft.add(key(self.unit[rows], WORK), self.op[rows], self.row_columns(rows), slots)
