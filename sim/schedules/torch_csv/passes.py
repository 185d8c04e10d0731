"""What is wrong with the passes of a torch schedule: missing, twice, too early, on a second rank.

torch's `_validate_schedule` counts passes in sets, so it takes a pass that stands twice; it takes a W
that stands beside a B of the same microbatch as well. Here every (stage, microbatch) has one F, and one B
or one I and one W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.schedules.torch_csv.actions import ACTION_CODES, ACTION_KINDS, ActionKind, Actions

__all__ = ["Finding", "Rows", "pass_findings"]

Ints = NDArray[np.int64]
_F, _I, _W, _B = (ACTION_CODES[kind] for kind in (ActionKind.F, ActionKind.I, ActionKind.W, ActionKind.B))


class Finding(NamedTuple):
    """One thing that is wrong.

    `cell` is the place in the rank's row, from 1, or 0 where the action is missing; an `error` keeps a
    step from being right or from ending, anything else is worth a look.
    """

    rule: str
    rank: int
    cell: int
    action: str
    why: str
    error: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """All ranks' actions one behind the other, and where each (kind, stage, microbatch) stands.

    Parameters
    ----------
    ranks
        Actions of each rank.
    num_stages, num_microbatches
        Sizes; an action with a larger number has no place in the tables.
    """

    ranks: Sequence[Actions]
    num_stages: int
    num_microbatches: int
    kind: NDArray[np.int8] = field(init=False)
    item: Ints = field(init=False)  #: stage*m + microbatch
    rank: Ints = field(init=False)
    start: Ints = field(init=False)  #: of each rank, its first row
    known: NDArray[np.bool_] = field(init=False)  #: whether stage and microbatch are among those of the step

    def __post_init__(self) -> None:
        """Join the columns."""
        lengths = np.array([len(actions) for actions in self.ranks], dtype=np.int64)
        stage = np.concatenate([actions.stage for actions in self.ranks])
        microbatch = np.concatenate([actions.microbatch for actions in self.ranks])
        object.__setattr__(self, "kind", np.concatenate([actions.kind for actions in self.ranks]))
        object.__setattr__(self, "item", stage * self.num_microbatches + microbatch)
        known = (stage < self.num_stages) & (microbatch < self.num_microbatches)
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "rank", np.repeat(np.arange(len(lengths)), lengths))
        object.__setattr__(self, "start", np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64))

    def places(self, kind: ActionKind) -> tuple[Ints, Ints]:
        """Of a kind, the first row of each item, -1 where there is none, and the rows that come again."""
        rows = np.flatnonzero((self.kind == ACTION_CODES[kind]) & self.known)
        first = np.full(self.num_stages * self.num_microbatches, -1, dtype=np.int64)
        items = self.item[rows]
        first[items[::-1]] = rows[::-1]
        return first, rows[first[items] != rows]

    def find(self, row: int) -> tuple[int, int, str]:
        """Rank, cell and text of a row."""
        rank = int(self.rank[row])
        at = row - int(self.start[rank])
        return rank, int(self.ranks[rank].cell[at]), self.ranks[rank].name(at)


def pass_findings(
    ranks: Sequence[Actions], placement: Sequence[Sequence[int]], num_microbatches: int
) -> list[Finding]:
    """Passes that are missing, stand twice or too early, in order of rank and cell.

    Parameters
    ----------
    ranks
        Actions of each rank; what is no pass is passed over.
    placement
        The rank of each stage.
    num_microbatches
        Microbatches of a step.
    """
    rows = Rows(ranks, len(placement), num_microbatches)
    m = num_microbatches
    out: list[Finding] = []
    at: dict[int, Ints] = {}
    for code in (_F, _I, _W, _B):
        at[code], again = rows.places(ACTION_KINDS[code])
        for row in again.tolist():
            rank, cell, text = rows.find(row)
            first = rows.find(int(at[code][rows.item[row]]))[1]
            out.append(Finding("pass.twice", rank, cell, text, f"stands in cell {first} already"))

    for row in np.flatnonzero(~rows.known & (rows.kind <= _B)).tolist():
        rank, cell, text = rows.find(row)
        out.append(
            Finding("pass.unknown", rank, cell, text, f"is beyond the {m} microbatches of most stages")
        )

    def missing(code: int, wrong: NDArray[np.bool_], why: str) -> None:
        for item in np.flatnonzero(wrong).tolist():
            stage, microbatch = divmod(item, m)
            text = f"{stage}{ACTION_KINDS[code]}{microbatch}"
            out.append(Finding("pass.missing", placement[stage][0], 0, text, why))

    def early(code: int, before: int) -> None:
        both = (at[code] >= 0) & (at[before] >= 0)
        for item in np.flatnonzero(both & (at[code] < at[before])).tolist():
            rank, cell, text = rows.find(int(at[code][item]))
            _, later, other = rows.find(int(at[before][item]))
            out.append(Finding("pass.early", rank, cell, text, f"comes before {other} in cell {later}"))

    fused, split = at[_B] >= 0, at[_I] >= 0
    missing(_F, at[_F] < 0, "is missing: no rank runs this forward pass")
    missing(
        _B,
        ~fused & ~split & (at[_W] < 0),
        "is missing, or I and W: there is no backward pass of this microbatch",
    )
    missing(_I, ~fused & ~split & (at[_W] >= 0), "is missing: its W has no I to follow")
    missing(_W, split & ~fused & (at[_W] < 0), "is missing: its weight gradient is never computed")
    for code in (_I, _W):
        for item in np.flatnonzero(fused & (at[code] >= 0)).tolist():
            rank, cell, text = rows.find(int(at[code][item]))
            other = rows.find(int(at[_B][item]))[1]
            out.append(Finding("pass.twice", rank, cell, text, f"the B in cell {other} computes it already"))
    early(_B, _F)
    early(_I, _F)
    early(_W, _I)
    out += _overlaps(ranks)
    return sorted(out, key=lambda finding: (finding.rank, finding.cell))


def _overlaps(ranks: Sequence[Actions]) -> list[Finding]:
    """Overlaps that hold two passes of one item: they cannot run side by side."""
    out: list[Finding] = []
    for rank, actions in enumerate(ranks):
        inside = np.flatnonzero(actions.overlap >= 0)
        seen: set[tuple[int, int, int]] = set()
        for row in inside.tolist():
            key = (int(actions.overlap[row]), int(actions.stage[row]), int(actions.microbatch[row]))
            if key in seen:
                why = "shares its overlap with another pass of its stage and microbatch"
                out.append(Finding("pass.overlap", rank, int(actions.cell[row]), actions.name(row), why))
            seen.add(key)
    return out
