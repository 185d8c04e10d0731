"""Cuts of a search space: all candidates with one tp, cp and microbatch, as columns instead of objects.

A candidate is a number; its pipeline ranks, replicas, schedule, chunks and ZeRO stage are looked up in
columns. The rules are those of `exactmap.sim.planner.candidate.judge`, in the same order, on whole columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.planner.candidate import (
    ONE_RANK,
    Candidate,
    SearchSpace,
    divisors,
    goes_together,
    replicas,
)
from exactmap.sim.schedules.registry import find_schedule

__all__ = ["Cut", "cuts_of"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rule = tuple[str, Mask, Ints]


@dataclass(frozen=True)
class Cut:
    """Candidates of one tp, cp and microbatch.

    Parameters
    ----------
    space
        The space that this is a part of.
    tp, cp, microbatch
        What its candidates have in common.
    grids
        (pipeline ranks, replicas) to try.
    kinds
        (schedule, chunks) to try.
    """

    space: SearchSpace
    tp: int
    cp: int
    microbatch: int
    grids: tuple[tuple[int, int], ...]
    kinds: tuple[tuple[str, int], ...]

    @property
    def num_candidates(self) -> int:
        """Candidates of the cut, those included that break a rule."""
        return len(self.grids) * len(self.kinds) * len(self.space.zero)

    @cached_property
    def places(self) -> tuple[Ints, Ints, Ints]:
        """Of each candidate: its place in `grids`, in `kinds` and in the space's ZeRO stages."""
        shape = (len(self.grids), len(self.kinds), len(self.space.zero))
        grid, kind, zero = np.unravel_index(np.arange(self.num_candidates), shape)
        return grid, kind, zero

    def column(self, choice: str) -> NDArray[np.generic]:
        """A choice of each candidate, such as ``pp``."""
        grid, kind, zero = self.places
        match choice:
            case "pp" | "dp":
                values = np.array([each[choice == "dp"] for each in self.grids])
                return values[grid]
            case "schedule":
                return np.array([name for name, _ in self.kinds])[kind]
            case "chunks":
                return np.array([chunks for _, chunks in self.kinds])[kind]
            case "zero":
                return np.array(self.space.zero)[zero]
            case _:
                return np.full(self.num_candidates, getattr(self, choice))

    def candidate(self, index: int) -> Candidate:
        """A candidate by its number."""
        grid, kind, zero = (each[index] for each in self.places)
        (pp, dp), (schedule, chunks) = self.grids[grid], self.kinds[kind]
        num_microbatches = self.space.global_batch // (dp * self.microbatch)
        stage = self.space.zero[zero]
        return Candidate(self.tp, self.cp, pp, dp, chunks, self.microbatch, num_microbatches, schedule, stage)

    def broken_rules(self) -> Iterator[Rule]:
        """Rules in their order: name, which candidates break it, and by how much."""
        space, tp, cp = self.space, self.tp, self.cp
        pp, dp, chunks, zero = (
            np.asarray(self.column(name), dtype=np.int64) for name in ("pp", "dp", "chunks", "zero")
        )
        none, all_ = np.zeros(self.num_candidates, dtype=np.int64), np.ones(self.num_candidates, dtype=bool)
        gpus = tp * cp * pp * dp
        yield "too few GPUs", gpus > space.num_gpus, gpus - space.num_gpus
        yield "batch not divisible", space.global_batch % (dp * self.microbatch) != 0, none
        yield "too few layers", pp * chunks > space.layers, pp * chunks - space.layers
        heads = space.heads % tp or (space.kv_heads % tp and tp % space.kv_heads)
        yield "heads not divisible", all_ & bool(heads), none
        yield "sequence not divisible", all_ & bool(space.seq % (2 * cp if cp > 1 else 1)), none
        yield "nothing to shard", (zero > 0) & (dp * cp == 1), none
        one_rank = np.isin(self.column("schedule"), ONE_RANK)
        yield "no pipeline", (pp == 1) & ~one_rank, none
        yield "schedule", self._misfits(dp), none

    def _misfits(self, dp: Ints) -> Mask:
        """Candidates that their schedule does not take."""
        microbatches = self.space.global_batch // np.maximum(1, dp * self.microbatch)
        grid, kind, _ = self.places
        key = grid * len(self.kinds) + kind
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        bad = [
            _has_problem(
                self.kinds[kind[each]][0],
                self.grids[grid[each]][0],
                int(microbatches[each]),
                self.kinds[kind[each]][1],
            )
            for each in first
        ]
        return np.array(bad, dtype=bool)[inverse]


@lru_cache(maxsize=1 << 18)
def _has_problem(schedule: str, num_ranks: int, num_microbatches: int, chunks: int) -> bool:
    return bool(find_schedule(schedule).problem(num_ranks, num_microbatches, chunks))


def cuts_of(space: SearchSpace) -> list[Cut]:
    """All cuts of a space; those first that tend to hold good candidates, for searches that are stopped."""
    batch = divisors(space.global_batch)
    kinds = tuple(
        (schedule, chunks)
        for schedule in space.schedules
        for chunks in space.chunks
        if goes_together(schedule, chunks)
    )
    out = []
    for tp in space.tp:
        for cp in space.cp:
            for microbatch in space.microbatch:
                grids = tuple(
                    (pp, dp) for pp in space.pp for dp in replicas(space, batch, tp * cp * pp, microbatch)
                )
                out.append(Cut(space, tp, cp, microbatch, grids, kinds))
    return sorted(out, key=lambda cut: abs(np.log2(cut.tp * cut.cp / 8)) + np.log2(cut.microbatch) / 2)
