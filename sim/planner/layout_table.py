"""What the candidates of a cut take from model and machine, computed once for all that share it.

Candidates on the same mesh share the prices of a layer and of a hop; with the same number of ranks and chunks
besides, their stages; with the same ZeRO stage, their collectives and the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.planner.array_form import CODE, Columns
from exactmap.sim.planner.estimate import layers_of_stages, map_refusal
from exactmap.sim.planner.pipelines import PipelineRow, PipelineTable, row_of

if TYPE_CHECKING:
    from exactmap.sim.planner.candidate import Candidate
    from exactmap.sim.planner.cut import Cut
    from exactmap.sim.planner.estimate import Estimator
    from exactmap.topology.mapping import Mesh

__all__ = ["LayoutTable"]

_T = TypeVar("_T")
Indices = NDArray[np.intp]


class _OnMesh(NamedTuple):
    """A mesh, and the prices of a layer and of the ends on it."""

    mesh: Mesh
    unit_ns: dict[tuple[str, int], int]


class _Refused(NamedTuple):
    """Why candidates that share something cannot be."""

    rule: str
    why: str


class _Numbers(NamedTuple):
    """What a candidate has in common with those of its mesh, chunks and ZeRO stage; see `Columns`."""

    hop_ns: int
    reduce_first_ns: int
    reduce_rank_ns: int
    gather_first_ns: int
    update_ns: int
    norm_ns: int


class LayoutTable:
    """Candidates of a cut, each with its pipeline; `refused` says (rule, number, why) of the others.

    Parameters
    ----------
    cut
        The cut.
    alive
        Numbers of its candidates that keep all rules of their own.
    estimator
        Model and machine.
    """

    def __init__(self, cut: Cut, alive: Indices, estimator: Estimator) -> None:
        self.cut = cut
        self.estimator = estimator
        self._rows: list[PipelineRow] = []
        self._meshes: dict[tuple[int, int], _OnMesh | _Refused] = {}
        self._places: dict[tuple[object, int, int], int | _Refused] = {}
        places, inverse = self._once_for_all(alive, self._place, by_zero=False)
        good = np.array([isinstance(each, int) for each in places])[inverse]
        self.refused = tuple(
            (each.rule, int(index), each.why)
            for index, place in zip(alive[~good], inverse[~good], strict=True)
            if isinstance(each := places[place], _Refused)
        )
        self.index = alive[good]
        self._row = np.array([each if isinstance(each, int) else -1 for each in places])[inverse[good]]

    def few(self) -> Columns:
        """Columns as far as memory depends on them; times are 0."""
        return self._with(np.zeros((len(self.index), len(_Numbers._fields))))

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop candidates."""
        self.index = self.index[mask]
        self._row = self._row[mask]

    def rows(self) -> PipelineTable:
        """The pipeline of each candidate, of which there must be one at least."""
        return PipelineTable.of(self._rows).take(self._row)

    def all(self) -> Columns:
        """Columns with all times."""
        numbers, inverse = self._once_for_all(self.index, self._numbers, by_zero=True)
        return self._with(np.array(numbers, dtype=np.float64)[inverse])

    def _with(self, numbers: NDArray[np.float64]) -> Columns:
        cut = self.cut
        grid, kind, zero = (each[self.index] for each in cut.places)
        schedule = np.array([CODE[name] for name, _ in cut.kinds])[kind]
        replicas = np.array([dp for _, dp in cut.grids])[grid]
        microbatches = (cut.space.global_batch // (replicas * cut.microbatch)).astype(np.float64)
        sharded = np.array(cut.space.zero)[zero] > 0
        shards = np.where(sharded, replicas * cut.cp, 1).astype(np.float64)
        return Columns(schedule, microbatches, shards, *numbers.T)

    def _once_for_all(
        self, index: Indices, ask: Callable[[Candidate], _T], *, by_zero: bool
    ) -> tuple[list[_T], Indices]:
        """Ask for one candidate of each mesh and number of chunks (and ZeRO stage), and which is whose."""
        grid, kind, zero = (each[index] for each in self.cut.places)
        chunks = np.array([number for _, number in self.cut.kinds])[kind]
        key = grid * (int(chunks.max(initial=0)) + 1) + chunks
        if by_zero:
            key = key * len(self.cut.space.zero) + zero
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return [ask(self.cut.candidate(int(index[each]))) for each in first], inverse

    def _numbers(self, candidate: Candidate) -> _Numbers:
        on_mesh = self._on_mesh(candidate)
        place = self._place(candidate)
        assert isinstance(on_mesh, _OnMesh), "a candidate that the map refuses"
        assert isinstance(place, int), "a candidate without stages"
        estimator = self.estimator
        mesh, row, pricing = on_mesh.mesh, self._rows[place], estimator.pricing
        shards, sharded = estimator.num_shards(candidate), candidate.zero > 0
        first, rank = int(row.first_elements), int(row.rank_elements)
        share = int(row.most_elements) // shards
        op = "RS" if sharded else "AR"
        return _Numbers(
            pricing.hop_ns(estimator.message_bytes(candidate), mesh) if candidate.pp > 1 else 0,
            pricing.reduce_ns(op, first, mesh),
            pricing.reduce_ns(op, rank, mesh),
            pricing.reduce_ns("AG", first, mesh) if sharded else 0,
            pricing.update_ns(share),
            pricing.norm_ns(share, mesh, sharded=sharded),
        )

    def _on_mesh(self, candidate: Candidate) -> _OnMesh | _Refused:
        key = (candidate.pp, candidate.dp)
        if key not in self._meshes:
            mesh = self.estimator.mesh(candidate)
            try:
                self._meshes[key] = _OnMesh(mesh, self.estimator.unit_ns(candidate.microbatch, mesh))
            except InfeasibleError as error:
                self._meshes[key] = _Refused("map", map_refusal(error))
        return self._meshes[key]

    def _place(self, candidate: Candidate) -> int | _Refused:
        """Row of the candidate's pipeline, or why it has none."""
        on_mesh = self._on_mesh(candidate)
        if isinstance(on_mesh, _Refused):
            return on_mesh
        key = (tuple(on_mesh.unit_ns.values()), candidate.pp, candidate.chunks)
        if key not in self._places:
            self._places[key] = self._cut_stages(candidate, on_mesh.unit_ns)
        return self._places[key]

    def _cut_stages(self, candidate: Candidate, unit_ns: dict[tuple[str, int], int]) -> int | _Refused:
        estimator = self.estimator
        try:
            counts = layers_of_stages(estimator.model.layers, candidate.pp, candidate.chunks, unit_ns)
        except InvalidInputError as error:
            return _Refused("too few layers", str(error.what))
        self._rows.append(
            row_of(counts, candidate.pp, unit_ns, lambda shape: estimator.stage_bytes(candidate, shape))
        )
        return len(self._rows) - 1
