"""How many slots of each pool live at once: by program order, and by simulated time.

Slots come to life where an instruction names them and end as the table of plan format, section 4, says. The
most that live at once is what a pool needs; that a plan's pools hold exactly so many is a property of the
lowering, and that no more live at any simulated time is what makes predicted memory the memory that is used.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exactmap.sim.engine.encoded import Ints, encode
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.table import POOL_LETTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan, Program
    from exactmap.sim.plan.table import InstructionTable

    Flags = NDArray[np.bool_]

__all__ = ["SlotLives", "peak_slots", "peak_slots_in_time", "slot_lives"]


class SlotLives(NamedTuple):
    """Lives of one pool's slots in one program; arrays have shape [lives]."""

    born: Ints  #: instruction that names the slot
    ends: Ints  #: instruction with which it ends; the program's last where nothing ends it


def peak_slots(plan: Plan) -> dict[tuple[int, str], int]:
    """Most slots that live at once in program order, by (pipeline rank, pool letter).

    Parameters
    ----------
    plan
        A plan that passed its checks. Where a replica has a program of its own the larger number counts;
        pools that no instruction of a rank names are absent.
    """
    out: dict[tuple[int, str], int] = {}
    for program in plan.programs:
        ranks = {line.pp for line in plan.maps if line.program == program.name}
        for letter, lives in slot_lives(plan, program).items():
            # What an instruction names lives beside what ends with it.
            num = _most(lives.born, lives.ends + 1)
            for pp in ranks:
                out[pp, letter] = max(out.get((pp, letter), 0), num)
    return out


def peak_slots_in_time(plan: Plan, trace: Trace) -> dict[tuple[int, str], int]:
    """Most slots that live at once in one step's trace, by (pipeline rank, pool letter).

    A slot lives from the time that its first instruction is reached until its last one is left.

    Parameters
    ----------
    plan
        The plan that the trace is of.
    trace
        One step, simulated or run.
    """
    lives_of: dict[str, dict[str, SlotLives]] = {}
    out: dict[tuple[int, str], int] = {}
    for first, last in pairwise(trace.actor_starts().tolist()):
        pp = int(trace.pp[first])
        program = plan.program(pp, int(trace.dp[first]))
        if program.name not in lives_of:
            lives_of[program.name] = slot_lives(plan, program)
        a_ns, e_ns = trace.a_ns[first:last], trace.e_ns[first:last]
        for letter, lives in lives_of[program.name].items():
            num = _most(a_ns[lives.born], e_ns[lives.ends])
            out[pp, letter] = max(out.get((pp, letter), 0), num)
    return out


def _most(starts: Ints, ends: Ints) -> int:
    """Most of the stretches start..end, end left out, that overlap in one point."""
    starts = np.sort(starts)
    begun = np.searchsorted(starts, starts, side="right")
    over = np.searchsorted(np.sort(ends), starts, side="right")
    return int((begun - over).max(initial=0))


def slot_lives(plan: Plan, program: Program) -> dict[str, SlotLives]:
    """Lives of all slots that a program names, by pool letter.

    Parameters
    ----------
    plan
        The plan, whose channels and groups tell the waits apart.
    program
        One of its programs.

    Raises
    ------
    InvalidInputError
        If posts and waits of a queue do not pair up.
    """
    rows = _Rows(plan, program)
    out: dict[str, SlotLives] = {}
    for letter in POOL_LETTERS:
        names = rows.slots[:, POOL_LETTERS.index(letter)] >= 0
        if names.any():
            births, deaths = rows.buffers(names) if letter == "h" else rows.others(letter, names)
            out[letter] = _match(births, deaths, len(program))
    return out


class _Marks(NamedTuple):
    """Instructions, and what of theirs begins or ends: births and deaths of one number belong together."""

    at: Ints
    number: Ints

    def and_also(self, other: _Marks) -> _Marks:
        return _Marks(np.concatenate((self.at, other.at)), np.concatenate((self.number, other.number)))


def _match(births: _Marks, deaths: _Marks, size: int) -> SlotLives:
    """Each life ends with the first death of its number that is not before its birth."""
    key = np.sort(deaths.number * size + deaths.at)
    wanted = births.number * size + births.at
    found = np.searchsorted(key, wanted)
    ends = np.append(key, -1)[found]
    ends = np.where(ends // size == births.number, ends % size, size - 1)
    return SlotLives(births.at, ends)


class _Rows:
    """A program's instructions, a braid's members in its place, with items and buckets as numbers."""

    def __init__(self, plan: Plan, program: Program) -> None:
        table = program.table
        self.at = np.arange(len(table))
        waited = np.full(len(table), -1, dtype=np.int64)  # kind of the post that a wait awaits
        encoded = encode(plan, program)
        waited[encoded.wait_at] = encoded.kind[encoded.post_at[encoded.post_of_wait]]
        parts: list[InstructionTable] = [table]
        if table.members is not None:
            braids = np.flatnonzero(table.num_members)
            nums = table.num_members[braids]
            inner = np.full(len(table.members), -1, dtype=np.int64)
            starts = np.repeat(table.first_member[braids], nums)
            inner[starts + np.arange(len(starts)) - np.repeat(np.cumsum(nums) - nums, nums)] = np.repeat(
                braids, nums
            )
            self.at = np.concatenate((self.at, inner))
            waited = np.concatenate((waited, np.full(len(inner), -1, dtype=np.int64)))
            parts.append(table.members)

        def column(name: str) -> Ints:
            return np.concatenate([getattr(part, name) for part in parts]).astype(np.int64)

        self.op, self.waited, self.slots = column("op"), waited, column("slots")
        stage, bucket, cut = column("stage"), column("bucket"), np.maximum(column("slice"), 0)
        num_stages = len(plan.stages)
        whole = column("microbatch") * num_stages + stage
        self.item = whole + cut * (num_stages * (int(column("microbatch").max(initial=0)) + 1))
        self.whole = whole  #: the item with all its slices
        self.bucket = bucket * num_stages + stage

    def _where(self, flags: Flags, number: Ints, more: int = 0) -> _Marks:
        return _Marks(self.at[flags], number[flags] + more)

    def _is(self, *kinds: Op) -> Flags:
        return np.isin(self.op, [CODES[kind] for kind in kinds])

    def _last(self, flags: Flags, number: Ints, more: int = 0) -> _Marks:
        """Of the rows that share a number (parts of a pass) the last."""
        marks = self._where(flags, number, more)
        order = np.lexsort((marks.at, marks.number))
        at, number = marks.at[order], marks.number[order]
        is_last = np.append(number[1:] != number[:-1], True)[: len(number)]
        return _Marks(at[is_last], number[is_last])

    def others(self, letter: str, names: Flags) -> tuple[_Marks, _Marks]:
        """Births and deaths of the slots of any pool but h."""
        item, bucket = self.item, self.bucket
        match letter:
            case "a" | "w":
                ends = self._is(Op.I, Op.B) if letter == "a" else self._is(Op.W, Op.B)
                away = self._where(self._is(Op.WOFF), item)
                return self._where(names, item), self._last(ends, item).and_also(away)
            case "g":
                return self._where(names, item), self._last(self._is(Op.W), item)
            case "k":
                # Slices run backward last to first: the last of them all is slice 0.
                return self._where(names, self.whole), self._last(self._is(Op.I, Op.B), self.whole)
            case "p":
                return self._where(names, bucket), self._where(self._is(Op.FREE), bucket)
            case "q":
                return self._where(names, bucket), self._last_closing_waits()
            case _:
                return self._where(names, item), self._where(self._is(Op.WLD), item)

    def _last_closing_waits(self) -> _Marks:
        """For each ZERO of a bucket the last wait for a reduction of that bucket before the next ZERO."""
        closes = np.isin(self.waited, [CODES[Op.RS], CODES[Op.AR]])
        at = np.flatnonzero(closes | self._is(Op.ZERO))
        order = at[np.lexsort((self.at[at], self.bucket[at]))]
        goes_on = np.zeros(len(order), dtype=np.bool_)
        goes_on[:-1] = closes[order[1:]] & (self.bucket[order[1:]] == self.bucket[order[:-1]])
        last = order[closes[order] & ~goes_on]
        return _Marks(self.at[last], self.bucket[last])

    def buffers(self, names: Flags) -> tuple[_Marks, _Marks]:
        """Births and deaths of stage inputs and outputs and their gradients.

        Four kinds of lives are told apart by number, modulo 4: x, dy, y, dx.
        """
        item = self.item * 4
        births = self._where(names & self._is(Op.RF), item, 0)
        births = births.and_also(self._where(names & self._is(Op.RB), item, 1))
        births = births.and_also(self._where(names & self._is(Op.F), item, 2))
        births = births.and_also(self._where(names & self._is(Op.I, Op.B), item, 3))
        weight = self._is(Op.W, Op.B)
        deaths = self._last(weight, item, 0).and_also(self._last(weight, item, 1))
        deaths = deaths.and_also(self._where(self.waited == CODES[Op.SF], item, 2))
        deaths = deaths.and_also(self._where(self.waited == CODES[Op.SB], item, 3))
        # A slot that LF or LB hands to the neighbour stage ends with that stage's W or B.
        for hand, kind, ahead in ((Op.LF, 2, 1), (Op.LB, 3, -1)):
            handed = self.item[self._is(hand)]
            there = weight & np.isin(self.item, handed + ahead)
            deaths = deaths.and_also(self._last(there, item - 4 * ahead, kind))
        return births, deaths
