"""Pipelines of one cut of the model: what each candidate's price takes from its stages, as rows of a table.

A row belongs to a number of ranks and chunks; schedules, microbatches and replicas share it. Stages are cut
as `Estimator.stages` cuts them, so a row says what that candidate's plan would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.workload.model import StageShape

if TYPE_CHECKING:
    from exactmap.sim.workload.footprint import StageFootprint

__all__ = ["PipelineRow", "PipelineTable", "StageBytes", "probed_ranks", "row_of"]

Floats = NDArray[np.float64]


def probed_ranks(num_ranks: int) -> tuple[int, int, int, int]:
    """Ranks that may be the fullest.

    The first has the embedding, the last the head; in between stashes fall and what waits for W grows.
    """
    p = num_ranks
    return (0, min(1, p - 1), p // 2, p - 1)


class StageBytes(NamedTuple):
    """A stage's footprint, and the padded numbers of parameters of each of its buckets."""

    footprint: StageFootprint
    buckets: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Of all buckets."""
        return sum(self.buckets)


class PipelineRow(NamedTuple):
    """One pipeline: times in ns of one microbatch, elements and bytes of a rank.

    Attributes
    ----------
    ranks, chunks
        p and v.
    fused_max, fused_sum
        F + B of the busiest rank, and of all ranks.
    split_max, split_sum
        The same with I and W apart.
    weight_sum
        W of all ranks.
    again_max
        F + F + B of the busiest rank: what is computed again included.
    gap
        Time between two chunks of the first rank being ready: backward of a stage, once round the ranks.
    first_elements, rank_elements, most_elements
        Of the first stage; of all stages of the first rank; of the rank that has most.
    probed
        The ranks whose memory is priced.
    elements, slots
        By probed rank: parameters, and what slots for all its buckets hold, each as large as the largest.
    a, w, h, g
        By probed rank: the largest slots of its stages, in bytes.
    work_fused, work_split, work_again
        Workspace of its passes, with B, with I and W, with recomputation.
    buffers
        Slots of h beside the stashes.
    """

    ranks: float
    chunks: float
    fused_max: float
    fused_sum: float
    split_max: float
    split_sum: float
    weight_sum: float
    again_max: float
    gap: float
    first_elements: float
    rank_elements: float
    most_elements: float
    probed: tuple[float, ...]
    elements: tuple[float, ...]
    slots: tuple[float, ...]
    a: tuple[float, ...]
    w: tuple[float, ...]
    h: tuple[float, ...]
    g: tuple[float, ...]
    work_fused: tuple[float, ...]
    work_split: tuple[float, ...]
    work_again: tuple[float, ...]
    buffers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PipelineTable:
    """Rows as columns, fields as in `PipelineRow`: shape [rows], by probed rank [rows, ranks probed]."""

    ranks: Floats
    chunks: Floats
    fused_max: Floats
    fused_sum: Floats
    split_max: Floats
    split_sum: Floats
    weight_sum: Floats
    again_max: Floats
    gap: Floats
    first_elements: Floats
    rank_elements: Floats
    most_elements: Floats
    probed: Floats
    elements: Floats
    slots: Floats
    a: Floats
    w: Floats
    h: Floats
    g: Floats
    work_fused: Floats
    work_split: Floats
    work_again: Floats
    buffers: Floats

    @staticmethod
    def of(rows: Sequence[PipelineRow]) -> PipelineTable:
        """Turn rows into columns."""
        return PipelineTable(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))

    def take(self, index: NDArray[np.intp]) -> PipelineTable:
        """Rows by number, in that order, again as a table."""
        return PipelineTable(*(getattr(self, field.name)[index] for field in fields(self)))


def row_of(
    counts: Sequence[int],
    num_ranks: int,
    unit_ns: Mapping[tuple[str, int], int],
    bytes_of: Callable[[StageShape], StageBytes],
) -> PipelineRow:
    """A row from the layers of each stage, round and round over the ranks.

    Parameters
    ----------
    counts
        Layers of each stage.
    num_ranks
        Pipeline ranks; they divide the stages.
    unit_ns
        (op, part) -> ns of F, I, W (and B where it is not I + W) of one microbatch through one layer
        (part 0), the embedding (1) and the head (2).
    bytes_of
        Bytes and elements of a stage.
    """
    p = num_ranks
    layers = np.array(counts, dtype=np.float64)
    times = {op: layers * unit_ns[op, 0] for op in ("F", "I", "W")}
    for op, by_stage in times.items():
        by_stage[0] += unit_ns[op, 1]
        by_stage[-1] += unit_ns[op, 2]
    fused = times["I"] + times["W"]
    if ("B", 0) in unit_ns:
        fused = layers * unit_ns["B", 0]
        fused[0] += unit_ns["B", 1]
        fused[-1] += unit_ns["B", 2]
    forward, backward, split, weight = (
        each.reshape(-1, p).sum(axis=0) for each in (times["F"], fused, times["I"] + times["W"], times["W"])
    )
    last = len(counts) - 1
    # Balanced stages have few shapes, and of those without embedding and head the largest needs most.
    shapes = {int(count): StageShape(int(count)) for count in set(counts)}
    first = StageShape(counts[0], embedding=True, head=last == 0)
    ends = {0: first, last: StageShape(counts[-1], embedding=last == 0, head=True)}
    plain = {count: bytes_of(shape).elements for count, shape in shapes.items()}
    elements = np.array([plain[count] for count in counts], dtype=np.float64)
    for number, shape in ends.items():
        elements[number] = bytes_of(shape).elements
    by_rank = elements.reshape(-1, p).sum(axis=0)
    probed = probed_ranks(p)
    mine = [_largest(counts, rank, p, shapes, ends) for rank in probed]
    sizes = [[bytes_of(shape).footprint for shape in held] for held in mine]
    buckets_of = [[size for shape in held for size in bytes_of(shape).buckets] for held in mine]
    num_more = [len(counts) // p - len(held) for held in mine]
    many = p < len(counts)
    buffers = [2 * (many or rank != last) + (many or rank > 0) for rank in probed]

    def largest(name: str) -> tuple[float, ...]:
        return tuple(float(max(getattr(size, name) for size in held)) for held in sizes)

    def scratch(passes: str) -> tuple[float, ...]:
        return tuple(
            float(max(size.workspace_bytes[letter] for size in held for letter in passes)) for held in sizes
        )

    again = (scratch("B"), largest("stashless_bytes"), largest("recompute_bytes"))
    return PipelineRow(
        ranks=p,
        chunks=len(counts) // p,
        fused_max=float((forward + backward).max()),
        fused_sum=float((forward + backward).sum()),
        split_max=float((forward + split).max()),
        split_sum=float((forward + split).sum()),
        weight_sum=float(weight.sum()),
        again_max=float((2 * forward + backward).max()),
        gap=float(fused[0] * p),
        first_elements=float(elements[0]),
        rank_elements=float(by_rank[0]),
        most_elements=float(by_rank.max()),
        probed=tuple(map(float, probed)),
        elements=tuple(float(by_rank[rank]) for rank in probed),
        slots=tuple(
            float((len(buckets) + more) * max(buckets))
            for buckets, more in zip(buckets_of, num_more, strict=True)
        ),
        a=largest("a_bytes"),
        w=largest("w_bytes"),
        h=largest("h_bytes"),
        g=largest("g_bytes"),
        work_fused=scratch("FB"),
        work_split=scratch("FIW"),
        work_again=tuple(map(max, zip(*again, strict=True))),
        buffers=tuple(map(float, buffers)),
    )


def _largest(
    counts: Sequence[int],
    rank: int,
    num_ranks: int,
    shapes: Mapping[int, StageShape],
    ends: Mapping[int, StageShape],
) -> list[StageShape]:
    """Stages of a rank that may need most: its ends, and of the others the one with most layers."""
    held = range(rank, len(counts), num_ranks)
    out = [ends[number] for number in ends if number in held]
    plain = max((counts[number] for number in held if number not in ends), default=-1)
    return out if plain < 0 else [*out, shapes[plain]]
