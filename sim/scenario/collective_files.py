"""Collectives that a user has measured: files that a cluster names, read as curves."""

from __future__ import annotations

from pathlib import Path

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes
from exactmap.sim.scenario.document import Problems
from exactmap.sim.scenario.schema import ClusterSection
from exactmap.sim.scenario.strict_yaml import Marked
from exactmap.topology.curves import Curves, read_curves
from exactmap.topology.nccl_tests import curves_of_runs, read_nccl_tests

__all__ = ["read_collective_files"]

_MAX_BYTES = 64 * 2**20


def read_collective_files(spec: ClusterSection, document: Marked, problems: Problems) -> Curves | None:
    """Curves of all files that a cluster names; of points that two files have, the first file's count.

    Parameters
    ----------
    spec, document
        The section, checked and as written.
    problems
        Takes what is wrong.
    """
    found: Curves | None = None
    for index, path in enumerate(spec.collectives or ()):
        try:
            curves = _read(path, spec)
        except InvalidInputError as error:
            place = document.place(("collectives", index))
            if not isinstance(error.where, Place):
                # The file cannot be read at all.
                error = InvalidInputError(error.what, where=place, got=f"{path}: {error.got}")
            problems.add(error, place)
            continue
        found = curves if found is None else found.over(curves)
    return found


def _check_fit(curves: Curves, path: str, spec: ClusterSection) -> None:
    """Refuse a group that the cluster's scale-up domains cannot hold."""
    size = spec.scale_up.domain_size or 1
    for key in curves.by_key:
        if key.num_ranks // key.num_domains > size:
            raise InvalidInputError(
                "a measured group does not fit the cluster",
                where=Place(path),
                got=f"{key.op} of {key.num_ranks} ranks in {key.num_domains} domains",
                expected=f"at most {size} in each domain of {spec.name}",
            )


def _read(path: str, spec: ClusterSection) -> Curves:
    text = read_bytes(path, _MAX_BYTES, "file of collectives").decode("utf-8-sig", errors="replace")
    if Path(path).suffix != ".csv":
        return curves_of_runs(
            read_nccl_tests(text, path),
            path,
            name=spec.gpu.name or "",
            gpus_per_host=spec.gpus_per_host or 1,
            domain_size=spec.scale_up.domain_size or 1,
        )
    by_gpu = read_curves(text, path)
    for name in (spec.gpu.name, spec.gpu.curves):
        if name in by_gpu:
            _check_fit(by_gpu[name], path, spec)
            return by_gpu[name]
    raise InvalidInputError(
        "the table has no collectives of this GPU",
        where=Place(path),
        got=", ".join(by_gpu),
        expected=" or ".join(dict.fromkeys(filter(None, (spec.gpu.name, spec.gpu.curves)))),
    )
