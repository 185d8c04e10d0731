"""One rank's program: works, posts, waits and notes with their slots, as columns.

Everything gets a key (`units`) and is sorted once. Waits for sends and copies are put off until a buffer
takes the slot that they free, or to the end: a rank never waits for one earlier than it must.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.schedules.bucket_lives import BucketLives
from exactmap.sim.schedules.copies import CopyQueue
from exactmap.sim.schedules.draft import Draft
from exactmap.sim.schedules.gradients import Gradients
from exactmap.sim.schedules.openings import Openings
from exactmap.sim.schedules.posts import Traffic
from exactmap.sim.schedules.slots import Colouring, colour
from exactmap.sim.schedules.units import (
    BEFORE,
    NEVER,
    NOTE,
    WORK,
    Ints,
    Units,
    grouped,
    key,
)

__all__ = ["ProgramBuilder"]

_F, _I, _RC = CODES[Op.F], CODES[Op.I], CODES[Op.RC]


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
        self.copies = CopyQueue(units, rank)
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
        units, op, item, copies = self.units, self.op, self.item, self.copies
        makers = np.flatnonzero(((op == _F) & (units.again_unit[item] < 0)) | (op == _RC))
        off_rows = units.off_row[item[makers]]
        away = np.flatnonzero(off_rows >= 0)
        off_rows = off_rows[away] - self.first_row
        loads = copies.rows[~copies.leaves]
        rows = np.concatenate((makers, loads))
        begin_keys = np.concatenate((key(self.unit[makers], WORK), copies.keys[~copies.leaves]))
        wanted_keys = np.full(len(away), NEVER, dtype=np.int64)
        split = bool((op == _I).any())
        colouring: Colouring | None = None
        for letter, last in (("a", units.backward_unit), ("w", units.last_unit)):
            if colouring is None or split:  # with B alone both stashes live equally long
                end_keys = key(last[item[rows]], WORK)
                end_keys[away] = copies.leave_keys(off_rows)
                colouring = colour(begin_keys, end_keys)
            self.num_slots[letter] = colouring.num_slots
            self.name(letter, rows, colouring.slot)
            wanted_keys = np.minimum(wanted_keys, colouring.wanted_key[away])
        self.name_lives("g", np.flatnonzero(op == _I), units.last_unit)
        if units.order.num_slices > 1:
            first = (op == _F) & (self.columns["slice"] == 0)
            self.name_lives("k", np.flatnonzero(first), units.backward_unit)
        if len(copies):
            self.add_copies(copies.wait_keys(off_rows, wanted_keys))

    def name_lives(self, letter: str, rows: Ints, last: Ints) -> None:
        """Slots that live from some passes to the `last` units of their items."""
        if len(rows):
            colouring = colour(key(self.unit[rows], WORK), key(last[self.item[rows]], WORK))
            self.num_slots[letter] = colouring.num_slots
            self.name(letter, rows, colouring.slot)

    def add_copies(self, wait_keys: Ints) -> None:
        """Copies and their waits."""
        copies, add = self.copies, self.draft.add
        hosted = colour(*copies.host_lives(wait_keys))
        self.num_slots["o"] = hosted.num_slots
        rows = copies.rows[copies.leaves]
        add(copies.keys[copies.leaves], CODES[Op.OFF], self.row_columns(rows), {"o": hosted.slot})
        rows = copies.rows[~copies.leaves]
        slots = {letter: self.named[letter][rows] for letter in "aw"}
        add(copies.keys[~copies.leaves], CODES[Op.LD], self.row_columns(rows), slots)
        waits = np.where(copies.leaves, CODES[Op.WOFF], CODES[Op.WLD])
        add(wait_keys, waits, self.row_columns(copies.rows))

    def add_passes(self) -> InstructionTable | None:
        """Passes, one by one or as braids; returns the members of the braids."""
        passes = np.delete(np.arange(len(self.op)), self.copies.rows)
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
