"""Give every buffer of a rank's program a slot, with the fewest slots per pool.

A buffer lives from the instruction that names it to the one that ends it, both included: an interval of the
program. Taking any free slot, and a new one only when none is free, uses as many slots as ever live at once,
so no assignment uses fewer.

The output of a pass is free when its send has been waited for. Such waits are put off until a buffer takes
that slot, or to the end, and slots without a wait are taken first: a rank never waits for a send earlier than
it must.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.schedules.posts import Step

__all__ = ["assign_slots"]


def assign_slots(
    steps: Sequence[Step], num_stages: int, num_microbatches: int
) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions with their slots, and how many slots each pool needs.

    Parameters
    ----------
    steps
        Works, posts, waits and notes of one rank from `place_posts`.
    num_stages, num_microbatches
        S and m.

    Returns
    -------
    tuple
        The rank's instructions, with a wait for every send; pool letter -> number of slots, for pools that
        have any.
    """
    program = _Program(num_stages, num_microbatches)
    for step in steps:
        program.add(step)
    program.wait_for_sends_left()
    return program.out, {letter: pool.size for letter, pool in program.pools.items() if pool.size}


class _Pool:
    """Slots of one pool; `held`: those that a send still holds, oldest first, with the wait."""

    __slots__ = ("held", "ready", "size")

    def __init__(self) -> None:
        self.size = 0
        self.ready: list[int] = []
        self.held: deque[tuple[int, Step]] = deque()

    def take(self) -> int:
        if self.ready:
            return heappop(self.ready)
        self.size += 1
        return self.size - 1


class _Program:
    """One rank's instructions as they grow, and which slot each living buffer has."""

    def __init__(self, num_stages: int, num_microbatches: int) -> None:
        self.num_microbatches = num_microbatches
        self.last_stage = num_stages - 1
        self.out: list[Instruction] = []
        self.pools = {letter: _Pool() for letter in "hawg"}
        # (what lives, item stage*m + microbatch) -> slot.
        # x, dy: inputs of a stage; y, dx: outputs; a, w, g: stashes.
        self.living: dict[tuple[str, int], int] = {}

    def add(self, step: Step) -> None:
        """Append one step, and the waits that must come before it."""
        op, stage, number, queue, cls = step
        item = stage * self.num_microbatches + number
        slots: tuple[tuple[str, int], ...] = ()
        names: tuple[str, ...]
        match op:
            case Op.F:
                names = ("a", "w") if stage == self.last_stage else ("y", "a", "w")
                slots = tuple([self.begin(what, item) for what in names])
            case Op.I | Op.B:
                names = (("dx",) if stage > 0 else ()) + (("g",) if op is Op.I else ())
                slots = tuple([self.begin(what, item) for what in names])
                self.end("a", item)
                if op is Op.B:
                    self.end_inputs(item, stage)
            case Op.W:
                self.end("g", item)
                self.end_inputs(item, stage)
            case Op.RF | Op.RB:
                slots = (self.begin("x" if cls == "F" else "dy", item),)
            case Op.LF:
                self.living["x", item + self.num_microbatches] = self.living.pop(("y", item))
            case Op.LB:
                self.living["dy", item - self.num_microbatches] = self.living.pop(("dx", item))
            case Op.WS:
                slot = self.living.pop(("y" if cls == "F" else "dx", item))
                self.pools["h"].held.append((slot, step))
                return
            case Op.AR:
                self.out.append(Instruction(op, stage, bucket=number, queue=queue))
                return
            case _:
                pass
        self.out.append(Instruction(op, stage, number, queue=queue, slots=slots))

    def begin(self, what: str, item: int) -> tuple[str, int]:
        """Give a buffer a slot; wait for the oldest send if that makes a new slot needless."""
        letter = what if what in self.pools else "h"
        pool = self.pools[letter]
        if not pool.ready and pool.held:
            self.wait_for_send(pool)
        slot = pool.take()
        self.living[what, item] = slot
        return letter, slot

    def end(self, what: str, item: int) -> None:
        """Free a buffer's slot."""
        slot = self.living.pop((what, item))
        heappush(self.pools[what if what in self.pools else "h"].ready, slot)

    def end_inputs(self, item: int, stage: int) -> None:
        """W or B is the last reader of its item."""
        self.end("w", item)
        if stage > 0:
            self.end("x", item)
        if stage < self.last_stage:
            self.end("dy", item)

    def wait_for_send(self, pool: _Pool) -> None:
        """Wait for the send that has held its slot longest.

        Waits of one channel were put off in posting order, so the oldest is also the next of its channel.
        """
        slot, wait = pool.held.popleft()
        heappush(pool.ready, slot)
        self.out.append(Instruction(wait.op, wait.stage, wait.number, queue=wait.queue))

    def wait_for_sends_left(self) -> None:
        """Wait for all sends that still hold a slot."""
        while self.pools["h"].held:
            self.wait_for_send(self.pools["h"])
