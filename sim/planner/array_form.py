"""Step time and memory of many candidates at once: the closed forms as operations on whole arrays.

What `Estimator.price` says of one candidate, for columns of them; tests hold the two equal. With T the passes
of a microbatch, p ranks, m microbatches, v chunks, the passes take what `exactmap.sim.planner.closed_form`
says; behind them come the gradients that nothing hides, the norm and the optimizer::

    tail = max(reduce of the first stage, reduce of its rank - (v - 1) gap) + norm + optimizer

The first rank is the last to be through, and its stages become ready one after the other, a round of the
pipeline (`gap`) apart. Sharded buckets are gathered before the first pass besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.pipelines import PipelineTable

if TYPE_CHECKING:
    from exactmap.sim.cost.formats import Formats

__all__ = ["CODE", "Columns", "memory_bytes", "passes_ns", "tail_ns"]

CODE = {name: number for number, name in enumerate(CLOSED_FORMS)}
"""Schedules with a closed form, as numbers of a column."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Candidates of one cut, a value each.

    Parameters
    ----------
    schedule
        As `CODE` has it.
    microbatches
        m.
    shards
        Ranks that share the optimizer's state; 1: each keeps its own.
    hop
        A message to the next stage, in ns.
    reduce_first, reduce_rank
        Reduction of the gradients of the first stage, and of all stages of its rank, in ns.
    gather_first
        Gathering of the first stage's parameters, in ns; 0 where they are not sharded.
    update
        Optimizer of the rank with most parameters, in ns.
    norm
        Norm of the gradients, in ns.
    """

    schedule: Ints
    microbatches: Floats
    shards: Floats
    hop: Floats
    reduce_first: Floats
    reduce_rank: Floats
    gather_first: Floats
    update: Floats
    norm: Floats


def _is(columns: Columns, name: str) -> NDArray[np.bool_]:
    return np.equal(columns.schedule, CODE[name])


def passes_ns(columns: Columns, rows: PipelineTable) -> Floats:
    """Passes, bubble and hops of a step, in ns; `rows` are those of the candidates, in their order."""
    p, v, m = rows.ranks, rows.chunks, columns.microbatches
    others, few = p - 1, np.maximum(0.0, p - m)
    split, again, inter = (_is(columns, name) for name in ("zb-h1", "1f1b-recompute", "interleaved-1f1b"))
    busiest = np.where(split, rows.split_max, np.where(again, rows.again_max, rows.fused_max))
    average = np.where(split, rows.split_sum, rows.fused_sum) / p
    weight = rows.weight_sum / p
    fill = np.where(
        inter,
        (others + few * (v - 1)) * average / v,
        np.where(split, others * (average - 2 * weight) + few * weight, others * average),
    )
    rounds = m - 1 - np.ceil((m - 1) / p)
    hops = np.where(
        inter,
        p * v - 1,
        np.where(
            split,
            others + np.minimum(np.maximum(m - 2, 0.0), others),
            np.where(_is(columns, "1f1b"), others + rounds, others),
        ),
    )
    return m * busiest + fill + 2 * hops * columns.hop


def tail_ns(columns: Columns, rows: PipelineTable) -> Floats:
    """What comes before and behind the passes, in ns."""
    # Only interleaving makes a rank's stages ready apart.
    hidden = (rows.chunks - 1) * rows.gap
    reduced = np.maximum(columns.reduce_first, columns.reduce_rank - hidden)
    return columns.gather_first + reduced + columns.norm + columns.update


def memory_bytes(columns: Columns, rows: PipelineTable, formats: Formats) -> Floats:
    """Bytes of each probed rank, shape [candidates, ranks probed]."""
    p, v, m = (each[:, None] for each in (rows.ranks, rows.chunks, columns.microbatches))
    rank, code = rows.probed, columns.schedule[:, None]
    gpipe, split, again, inter = (
        code == CODE[name] for name in ("gpipe", "zb-h1", "1f1b-recompute", "interleaved-1f1b")
    )
    warmup = 2 * (p - 1 - rank) + (v - 1) * np.minimum(m, p)
    depth = np.minimum(p - rank, m)
    stash = np.where(
        gpipe, m, np.where(inter, np.minimum(warmup + 1, m * v), np.where(split, np.minimum(p, m), depth))
    )
    until_i = np.where(split, depth, stash)
    left = np.where(split, np.minimum(rank + 1, m), 0.0)
    item = np.where(again, rows.h, rows.a + rows.w + rows.h)
    kept = np.rint(stash * item - (stash - until_i) * rows.a) + left * rows.g
    kept = kept + np.where(again, rows.a + rows.w, 0.0)
    work = np.where(split, rows.work_split, np.where(again, rows.work_again, rows.work_fused))
    shards = columns.shards[:, None]
    # Sharded parameters and gradients are whole in slots of their own while the step runs.
    whole = np.where(shards > 1, formats.param_bytes + formats.grad_bytes, 0)
    held = rows.elements * formats.state_bytes / shards + rows.slots * whole
    return held + kept + rows.buffers * rows.h + work
