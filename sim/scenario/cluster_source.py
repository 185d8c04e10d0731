"""A cluster from wherever it is described: the catalog by name, a cluster file, or a scenario's section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.scenario.cluster_file import resolve_cluster
from exactmap.sim.scenario.document import Problems, apply_override, as_mapping, expand_shorthand
from exactmap.sim.scenario.strict_yaml import Marked, raise_together, read_yaml_file
from exactmap.topology.hardware import Cluster

__all__ = ["read_cluster"]

_SECTION = "cluster"


def read_cluster(
    source: str | Path, overrides: Sequence[str] = (), *, num_gpus: int | None = None
) -> Cluster:
    """Read a cluster; of a scenario only its section of that name is looked at.

    Parameters
    ----------
    source
        A name of the catalog, a cluster file or a scenario (each ends in ``.yaml`` or ``.yml``).
    overrides
        Fields to set first, ``fabric.planes=4`` (or ``cluster.fabric.planes=4``), in order.
    num_gpus
        GPUs installed, instead of what the source says.

    Raises
    ------
    InvalidInputError
        If the source is unknown or is no whole cluster; all problems are listed.

    Examples
    --------
    >>> read_cluster("gb300-nvl72", ["fabric.rails=1"], num_gpus=144).fabric.rails
    1
    """
    section, folder = _section(str(source))
    problems = Problems()
    if num_gpus is not None:
        fields = {key: value for key, value in (as_mapping(section.value) or {}).items() if key != "hosts"}
        places = {**section.places, ("num_gpus",): Place(f"--gpus {num_gpus}")}
        section = Marked({**fields, "num_gpus": num_gpus}, places, section.prefix)
    for text in overrides:
        try:
            section = apply_override(section, text, below=_SECTION)
        except ExactmapError as error:
            problems.add(error)
    cluster = None if problems.found else resolve_cluster(section, folder, problems)
    if problems.found or cluster is None:
        raise_together(problems.found, f"problems in cluster {source}")
    return cluster


def _section(source: str) -> tuple[Marked, Path]:
    """The section that says which cluster, and where its relative paths start."""
    if not source.endswith((".yaml", ".yml")):
        return Marked({"catalog": source}, {}, prefix=(_SECTION,)), Path()
    path = Path(source)
    document = read_yaml_file(path)
    root = as_mapping(document.value) or {}
    if _SECTION not in root:
        return Marked({"file": source}, {}, prefix=(_SECTION,)), Path()
    name = root[_SECTION]
    is_file = isinstance(name, str) and name.endswith((".yaml", ".yml"))
    document = expand_shorthand(document, _SECTION, "file" if is_file else "catalog")
    section = (as_mapping(document.value) or {})[_SECTION]
    if as_mapping(section) is None:
        raise InvalidInputError(
            "not a cluster", where=document.place((_SECTION,)), got=repr(section)[:60], expected="a section"
        )
    places = {path[1:]: place for path, place in document.places.items() if path[:1] == (_SECTION,)}
    return Marked(section, places, prefix=(_SECTION,)), path.parent
