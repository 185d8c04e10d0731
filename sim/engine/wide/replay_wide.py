"""The wide replay: one compiled plan stepped for all columns at once.

Columns share the plan and nothing else, so what the replay of lanes does with a number (a maximum, an
addition) is done here with a row of numbers, one per column (`exactmap.sim.engine.wide.graph`), in the order
that the plan fixes (`exactmap.sim.engine.wide.tape`). Columns meet in operations of groups over dp, tp, cp or
ep, and in coupled works: the latest start and the longest duration along these axes. Columns are stepped in
blocks; blocks that meet wait for each other between phases. A block's times do not depend on how the columns
are cut or which thread steps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.wide.block import Block, Buffers, longest, meet
from exactmap.sim.engine.wide.graph import axes_mask, wide_graph
from exactmap.sim.engine.wide.tape import make_tape

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.columns import Columns, WideTimes
    from exactmap.sim.engine.wide.tape import Tape

__all__ = ["Progress", "WideResult", "replay_wide"]

Progress = Callable[[float, str], None]
"""Told the fraction done (0 to 1) and what is being done."""

_BLOCK_COLUMNS = 2048
_MOST_STEP_COLUMNS = 8192  # a step of at most so many columns is stepped as a whole, if there are several
_WINDOW_BYTES = 2**26


@dataclass(frozen=True, slots=True, eq=False)
class WideResult:
    """When the pipeline ranks of all columns are through, in ns.

    Parameters
    ----------
    columns
        How columns are numbered.
    end_ns
        [pp, columns] END.
    own_ns
        [pp, columns] when the rank first waits for other replicas after its last pass: its line reaches a
        wait for an operation of a group over dp. Its END where it has no such wait.
    makespan_ns
        [steps] the last END: the barrier clock.
    period_ns
        [steps] the longest time from the start of a rank's first pass to the end of its last: the free clock.
    """

    columns: Columns
    end_ns: Ints
    own_ns: Ints
    makespan_ns: Ints
    period_ns: Ints

    @property
    def replica_own_ns(self) -> Ints:
        """[steps, dp] when each replica would be through: the latest `own_ns` of its ranks."""
        num_steps, dp = self.columns.shape[:2]
        return np.asarray(self.own_ns.max(axis=0).reshape(num_steps, dp, -1).max(axis=2))


def replay_wide(
    compiled: CompiledPlan,
    times: WideTimes,
    *,
    num_threads: int = 2,
    progress: Progress | None = None,
    block_columns: int = _BLOCK_COLUMNS,
    window_bytes: int = _WINDOW_BYTES,
) -> WideResult:
    """Step a plan for all columns at once.

    Parameters
    ----------
    compiled
        The plan, compiled for one lane. Which instructions take time is taken from it: a post that costs
        nothing there costs nothing in any column. Copies out of receive buffers and what a host takes to
        issue are its own, the same in all columns.
    times
        Durations by column; asked for from `num_threads` threads at a time.
    num_threads
        How many blocks of columns are stepped at a time.
    progress
        Told how far the replay is.
    block_columns, window_bytes
        About how many columns a block has, and how large a thread's buffer of durations is. They change how
        long it takes, and nothing else.

    Raises
    ------
    InvalidInputError
        If replicas have programs of their own, or the columns do not fit the plan's mesh.
    """
    columns = times.columns
    _check(compiled, columns)
    if num_threads < 1 or block_columns < 1:
        raise InvalidInputError("threads and columns of a block must be at least 1")
    inner = columns.ep * columns.cp * columns.tp
    step_columns = columns.dp * inner
    whole = step_columns <= block_columns or (
        num_threads <= columns.num_steps and step_columns <= _MOST_STEP_COLUMNS
    )
    unit, num_units = (step_columns, columns.num_steps) if whole else (inner, columns.dp)
    # As many units per block as fit, but a block for each thread; blocks of equal width.
    num_blocks = max(-(-num_units // max(1, block_columns // unit)), min(num_threads, num_units))
    num_blocked = -(-num_units // num_blocks)
    width = num_blocked * unit
    graph = wide_graph(compiled, columns)
    tape = make_tape(
        compiled,
        graph,
        apart=0 if whole else axes_mask(("dp",), columns),
        window_rows=max(1, window_bytes // 8 // width),
    )
    pp = compiled.plan.mesh.pp
    result = WideResult(
        columns,
        end_ns=np.zeros((pp, len(columns)), dtype=np.int64),
        own_ns=np.zeros((pp, len(columns)), dtype=np.int64),
        makespan_ns=np.zeros(columns.num_steps, dtype=np.int64),
        period_ns=np.zeros(columns.num_steps, dtype=np.int64),
    )
    runs = _Runs(compiled, tape, times, result, width, num_threads, progress or _silent)
    if whole:
        runs.whole_steps(num_blocked)
    else:
        runs.parts_of_steps(num_blocked)
    np.max(result.end_ns.reshape(pp, columns.num_steps, -1), axis=(0, 2), out=result.makespan_ns)
    return result


def _silent(_fraction: float, _what: str) -> None:
    """Progress that nobody watches."""


def _check(compiled: CompiledPlan, columns: Columns) -> None:
    if len(compiled.durations.lanes) != 1:
        raise InvalidInputError(
            "the wide replay steps one program per pipeline rank, the same in all replicas",
            got=f"{len(compiled.durations.lanes)} lanes",
            hint="replicas with programs or lanes of their own are for the other engines",
        )
    mesh = compiled.plan.mesh
    for axis in ("dp", "ep", "cp", "tp"):
        size, asked = getattr(mesh, axis), getattr(columns, axis)
        if asked not in {1, size}:
            raise InvalidInputError(
                f"the columns do not fit the plan's mesh on axis {axis}",
                got=str(asked),
                expected=f"{size}, or 1",
            )


class _Runs:
    """The columns, block by block."""

    def __init__(
        self,
        compiled: CompiledPlan,
        tape: Tape,
        times: WideTimes,
        result: WideResult,
        width: int,
        num_threads: int,
        progress: Progress,
    ) -> None:
        self.compiled, self.tape, self.times, self.result = compiled, tape, times, result
        self.num_threads, self.progress = num_threads, progress
        self.inner_shape = result.columns.shape[2:]
        self.inner = int(np.prod(self.inner_shape))
        self.buffers: SimpleQueue[Buffers] = SimpleQueue()
        for _ in range(num_threads):
            self.buffers.put(Buffers(tape, width))

    def block(self, first: int, num_steps: int, dp: int) -> Block:
        """A block of whole steps, or of some replicas of one step."""
        num_columns = num_steps * dp * self.inner
        part = slice(first, first + num_columns)
        lines = len(self.result.end_ns)
        starts, ends = (np.zeros((lines, num_columns), dtype=np.int64) for _ in range(2))
        results = [self.result.end_ns[:, part], self.result.own_ns[:, part], starts, ends]
        return Block(self.tape, self.times, first, (num_steps, dp, *self.inner_shape), results)

    def play(self, block: Block, phase: int) -> None:
        """One phase of one block, with the buffers of whoever has none in use."""
        buffers = self.buffers.get()
        try:
            block.play(phase, buffers)
        finally:
            self.buffers.put(buffers)

    def finish(self, block: Block) -> None:
        """Take the block's longest time between its first and last pass."""
        num_steps = block.shape[0]
        step_columns = self.result.columns.dp * self.inner
        first = block.columns.start // step_columns
        span = (block.results[3] - block.results[2]).reshape(len(block.results[3]), num_steps, -1)
        period = self.result.period_ns[first : first + num_steps]
        np.maximum(period, span.max(axis=(0, 2)), out=period)

    def each(
        self, pool: ThreadPoolExecutor | None, work: Callable[[int], None], items: Iterable[int]
    ) -> None:
        """Do something for each item, in as many threads as there are."""
        for _ in map(work, items) if pool is None else pool.map(work, items):
            pass

    def whole_steps(self, num_blocked: int) -> None:
        """Blocks of whole steps: they never meet."""
        columns = self.result.columns
        step_columns = columns.dp * self.inner
        done = 0

        def work(first: int) -> None:
            nonlocal done
            num_steps = min(num_blocked, columns.num_steps - first)
            block = self.block(first * step_columns, num_steps, columns.dp)
            for phase in range(len(self.tape.phases)):
                self.play(block, phase)
            self.finish(block)
            done += num_steps
            self.progress(done / columns.num_steps, "stepping all columns")

        with ThreadPoolExecutor(self.num_threads) as pool:
            self.each(pool if self.num_threads > 1 else None, work, range(0, columns.num_steps, num_blocked))

    def parts_of_steps(self, num_blocked: int) -> None:
        """Blocks of some replicas, which meet between phases; one step after the other."""
        columns = self.result.columns
        num_phases = len(self.tape.phases)
        with ThreadPoolExecutor(self.num_threads) as pool:
            for step in range(columns.num_steps):
                blocks = [
                    self.block((step * columns.dp + dp) * self.inner, 1, min(num_blocked, columns.dp - dp))
                    for dp in range(0, columns.dp, num_blocked)
                ]
                for phase in range(num_phases):

                    def work(number: int, phase: int = phase, blocks: list[Block] = blocks) -> None:
                        self.play(blocks[number], phase)

                    self.each(pool if self.num_threads > 1 else None, work, range(len(blocks)))
                    self.meet(blocks, phase)
                    self.progress(
                        (step + (phase + 1) / num_phases) / columns.num_steps, "stepping all columns"
                    )
                for block in blocks:
                    self.finish(block)

    def meet(self, blocks: list[Block], phase: int) -> None:
        """Let the operations start that all blocks have been stepped up to."""
        shape = (1, *self.result.columns.shape[1:])
        columns = slice(blocks[0].columns.start, blocks[-1].columns.stop)
        for meeting in self.tape.meetings[phase]:
            row = meeting.times.row
            starts = np.concatenate([block.pool[row] for block in blocks])[None]
            took = np.array(longest(self.times, meeting.times, columns))[None]
            meet(starts, shape, meeting.axes)
            meet(took, shape, meeting.axes)
            starts += took
            for block in blocks:
                low = block.columns.start - columns.start
                block.pool[row] = starts[0, low : low + block.num_columns]
