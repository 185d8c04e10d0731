"""Memory of one rank over time: what a plan's slots hold while a trace goes by.

The regions (parameters, gradients, moments, staging, workspace) are there from load to end; slots come to
life and end as `docs/reference/plan-format.md`, section 4, says. Peak bytes = the arena: what is drawn below
it is room that the plan reserves and this moment does not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.report.quantity import show_bytes
from exactmap.sim.report.timeline import time_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["MemoryCurve", "draw_memory", "memory_curve"]

POOL_NAMES = {
    "h": "stage inputs and outputs (h)",
    "a": "stash for I (a)",
    "w": "stash for W (w)",
    "g": "gradients for W (g)",
    "k": "keys and values (k)",
    "p": "gathered parameters (p)",
    "q": "gradient shards (q)",
}
REGION_COLOURS = {
    "params": "#4C72B0",
    "grads": "#64A6BD",
    "moments": "#90A8C3",
    "staging": "#ADB6C4",
    "workspace": "#D3D3D3",
}
POOL_COLOURS = {
    "h": "#E69F00",
    "a": "#D55E00",
    "w": "#CC79A7",
    "g": "#009E73",
    "k": "#F0E442",
    "p": "#56B4E9",
    "q": "#999999",
}

BOUNDARY = {Op.F: "y", Op.RC: "y", Op.RF: "x", Op.RB: "dy", Op.I: "dx", Op.B: "dx"}
"""What an h slot holds that an instruction names."""

Key = tuple[str, int, int, int]
"""(what, stage, microbatch, slice), with what in x y dx dy a w g k, or p q and the bucket."""


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """One rank's live bytes; `live_bytes[letter][i]` holds from `times_ns[i]` to `times_ns[i+1]`."""

    pp: int
    times_ns: NDArray[np.int64]
    region_bytes: dict[str, int]
    live_bytes: dict[str, NDArray[np.int64]]
    arena_bytes: int
    end_ns: int

    @property
    def peak_live_bytes(self) -> int:
        """Most bytes in use at once: regions and living slots."""
        slots = sum(self.live_bytes.values(), start=np.zeros(len(self.times_ns), np.int64))
        return sum(self.region_bytes.values()) + int(slots.max(initial=0))


def memory_curve(plan: Plan, trace: Trace, pp: int, dp: int = 0) -> MemoryCurve:
    """Live bytes of pipeline rank `pp` over one step of a trace."""
    program = plan.program(pp, dp)
    rows = trace.actor(pp, dp)
    slot_bytes = {pool.letter: pool.bytes for pool in plan.pools if pool.pp == pp and pool.letter != "o"}
    lives = _Lives({channel.name: channel.cls for channel in plan.channels})
    changes: list[tuple[int, str, int]] = []
    for instruction, begin_ns, end_ns in zip(
        program.instructions, rows.a_ns.tolist(), rows.e_ns.tolist(), strict=True
    ):
        for letter, step in lives.follow(instruction):
            if letter in slot_bytes:
                changes.append((begin_ns if step > 0 else end_ns, letter, step * slot_bytes[letter]))
    changes.sort(key=lambda change: change[0])
    times = np.array([0, *(time for time, _, _ in changes)], np.int64)
    curves = {
        mine: np.cumsum([0, *(num if letter == mine else 0 for _, letter, num in changes)], dtype=np.int64)
        for mine in slot_bytes
    }
    regions = {region.kind: region.bytes for region in plan.regions if region.pp == pp}
    arena = next(arena.bytes for arena in plan.arenas if arena.pp == pp)
    return MemoryCurve(pp, times, regions, curves, arena, int(rows.e_ns[-1]))


class _Lives:
    """Follows one rank's program and tells which slots come to life (+1) or end (-1)."""

    def __init__(self, channel_class: dict[str, str]) -> None:
        self.channel_class = channel_class
        self.living: dict[Key, str] = {}

    def follow(self, instruction: Instruction) -> list[tuple[str, int]]:
        """Changes that one instruction makes, as (pool letter, +1 or -1)."""
        out: list[tuple[str, int]] = []
        for one in instruction.members or (instruction,):
            out += self._begun(one)
            out += self._ended(one)
        return out

    def _begun(self, one: Instruction) -> list[tuple[str, int]]:
        item, bucket = (one.stage, one.microbatch, one.slice), (one.stage, one.bucket, -1)
        for letter, _ in one.slots:
            what = BOUNDARY[one.op] if letter == "h" else letter
            self.living[(what, *(bucket if letter in "pq" else item))] = letter
        return [(letter, 1) for letter, _ in one.slots]

    def _ended(self, one: Instruction) -> list[tuple[str, int]]:
        item, bucket = (one.stage, one.microbatch, one.slice), (one.stage, one.bucket, -1)
        match one.op:
            case Op.I:
                return self._end("a", item) + (self._end("k", item) if one.slice <= 0 else [])
            case Op.W:
                return [change for what in ("x", "dy", "w", "g") for change in self._end(what, item)]
            case Op.B:
                return [change for what in ("x", "dy", "a", "w", "k") for change in self._end(what, item)]
            case Op.WS:
                return self._end("y" if self.channel_class[one.queue] == "F" else "dx", item)
            case Op.LF:
                self.living["x", one.stage + 1, one.microbatch, one.slice] = self.living.pop(("y", *item))
            case Op.LB:
                self.living["dy", one.stage - 1, one.microbatch, one.slice] = self.living.pop(("dx", *item))
            case Op.FREE:
                return self._end("p", bucket)
            case Op.WC if one.bucket >= 0:
                return self._end("q", bucket)
            case Op.WOFF:
                return self._end("a", item) + self._end("w", item)
            case _:
                pass
        return []

    def _end(self, what: str, where: tuple[int, int, int]) -> list[tuple[str, int]]:
        letter = self.living.pop((what, *where), None)
        return [] if letter is None else [(letter, -1)]


def draw_memory(curves: Sequence[MemoryCurve], title: str, *, width_in: float = 12.0) -> Figure:
    """Draw a row per rank: regions and living slots stacked, the arena as a line on top."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(width_in, 1.0 + 2.0 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    scale, unit = time_unit(max((curve.end_ns for curve in curves), default=0))
    seen: dict[str, str] = {}
    for axes, curve in zip(panels, curves, strict=True):
        x = np.append(curve.times_ns, curve.end_ns) / scale
        regions = [(name, np.full(len(x), num)) for name, num in curve.region_bytes.items() if num]
        pools = [(POOL_NAMES[name], np.append(part, part[-1])) for name, part in curve.live_bytes.items()]
        colours = [REGION_COLOURS[name] for name, _ in regions]
        colours += [POOL_COLOURS[name] for name in curve.live_bytes]
        layers = [*regions, *pools]
        seen |= {name: colour for (name, _), colour in zip(layers, colours, strict=True)}
        size, size_unit = _byte_unit(curve.arena_bytes)
        axes.stackplot(x, [part / size for _, part in layers], colors=colours, step="post", linewidth=0)
        axes.axhline(curve.arena_bytes / size, color="black", linewidth=0.8, linestyle="--")
        axes.set_ylabel(f"rank {curve.pp} [{size_unit}]")
        axes.text(
            1.0,
            1.02,
            f"arena {show_bytes(curve.arena_bytes)}",
            transform=axes.transAxes,
            ha="right",
            fontsize=8,
        )
        axes.set_ylim(0, 1.08 * curve.arena_bytes / size)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_title(title, loc="left")
    panels[-1].set_xlim(0, max((curve.end_ns for curve in curves), default=1) / scale)
    panels[-1].set_xlabel(f"time [{unit}]")
    handles = [Patch(facecolor=colour, label=name) for name, colour in seen.items()]
    figure.legend(handles=handles, ncols=4, loc="outside lower center", frameon=False, fontsize=8)
    return figure


def _byte_unit(num_bytes: int) -> tuple[float, str]:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if num_bytes >= 2**power:
            return float(2**power), unit
    return 1.0, "B"
