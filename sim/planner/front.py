"""The Pareto front: candidates that none beats in step time, GPUs and memory at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from exactmap.sim.planner.candidate import Candidate
    from exactmap.sim.planner.cut import Cut

__all__ = ["Front", "FrontPoint"]

Floats = NDArray[np.float64]


class FrontPoint(NamedTuple):
    """A candidate that none beats in all three: closed-form step in ns, GPUs, bytes of the fullest rank."""

    step_ns: float
    num_gpus: int
    memory_bytes: float
    candidate: Candidate


@dataclass(slots=True)
class Front:
    """The front of all candidates that were added; ascending by step, then GPUs, then memory."""

    points: list[FrontPoint] = field(default_factory=list)

    def add(self, cut: Cut, index: NDArray[np.intp], step_ns: Floats, memory_bytes: Floats) -> None:
        """Take in candidates of a cut by number, each with its step and its memory."""
        columns = (np.asarray(cut.column(name), dtype=np.float64)[index] for name in ("pp", "dp"))
        gpus = np.prod(list(columns), axis=0) * (cut.tp * cut.cp)
        known = np.array([point[:3] for point in self.points], dtype=np.float64).reshape(-1, 3)
        new = np.stack([step_ns, gpus, memory_bytes], axis=1)
        new_kept = _unbeaten(new[(alive := _not_beaten_by(known, new))])
        chosen = np.flatnonzero(alive)[new_kept]
        old_kept = _not_beaten_by(new[chosen], known)
        self.points = [point for point, kept in zip(self.points, old_kept, strict=True) if kept]
        self.points += [
            FrontPoint(
                float(new[each, 0]), int(new[each, 1]), float(new[each, 2]), cut.candidate(int(index[each]))
            )
            for each in chosen
        ]
        self.points.sort()


def _not_beaten_by(others: Floats, points: Floats) -> NDArray[np.bool_]:
    """Which points no other is at least as good as in everything."""
    alive = np.ones(len(points), dtype=bool)
    for other in others:
        alive &= (points < other).any(axis=1)
    return alive


def _unbeaten(points: Floats) -> NDArray[np.intp]:
    """Numbers of the points that no other of them beats; of equal ones the first."""
    left = np.lexsort(points.T[::-1])
    out = []
    while len(left):
        # The first in order is beaten by none of those behind it.
        best, left = left[0], left[1:]
        out.append(best)
        left = left[(points[left] < points[best]).any(axis=1)]
    return np.array(out, dtype=np.intp)
