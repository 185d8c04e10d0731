"""A cluster and its map without a scenario around them: for a plan, which knows no machine.

Overrides name the same fields as in a scenario: ``cluster.num_gpus=1152``, ``map.exclude=[gpu 17]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exactmap.errors import ExactmapError, InvalidInputError
from exactmap.sim.scenario.cluster_file import resolve_cluster
from exactmap.sim.scenario.document import Problems, apply_override, as_mapping, validate
from exactmap.sim.scenario.map_section import MapSection, map_request
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.scenario.schema import ClusterSection
from exactmap.sim.scenario.strict_yaml import Marked, raise_together, read_yaml_file
from exactmap.topology.hardware import Cluster

__all__ = ["is_scenario", "load_mapped_cluster"]


class _Sections(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cluster: ClusterSection
    map: MapSection = MapSection()


def is_scenario(name_or_path: str | Path) -> bool:
    """Whether a cluster's name is that of a scenario file."""
    text = str(name_or_path)
    return text.endswith((".yaml", ".yml")) and "exactmap" in (
        as_mapping(read_yaml_file(Path(text)).value) or {}
    )


def load_mapped_cluster(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Cluster:
    """The cluster of a name of the catalog, a cluster file, or a scenario, with its map request.

    Parameters
    ----------
    name_or_path
        The cluster; a path ends in ``.yaml`` or ``.yml``.
    overrides
        ``cluster.a=b`` and ``map.a=b``, in order.

    Raises
    ------
    InvalidInputError
        If anything is wrong; all problems are listed.

    Examples
    --------
    >>> cluster = load_mapped_cluster("h100-8", ["cluster.num_gpus=16", "map.exclude=[gpu 3]"])
    >>> cluster.num_gpus, cluster.usable_gpus
    (16, 15)
    """
    text = str(name_or_path)
    if is_scenario(text):
        return load_scenario(text, overrides).cluster
    is_file = text.endswith((".yaml", ".yml"))
    problems = Problems()
    document = Marked({"cluster": {"file" if is_file else "catalog": text}}, {})
    for override in overrides:
        try:
            document = apply_override(document, override)
        except ExactmapError as error:
            problems.add(error)
    root = as_mapping(document.value) or {}
    spec = validate(Marked({**root, "cluster": {}}, document.places), _Sections, problems)
    places = {path[1:]: place for path, place in document.places.items() if path[:1] == ("cluster",)}
    cluster = resolve_cluster(Marked(root.get("cluster"), places, prefix=("cluster",)), Path(), problems)
    if problems.found or spec is None or cluster is None:
        raise_together(problems.found, f"problems in cluster {text}")
    cluster = replace(cluster, map_request=map_request(spec.map))
    if cluster.usable_gpus < 1:
        raise InvalidInputError(
            "no GPU is left to use", where="map.exclude", got=f"{cluster.num_gpus} excluded"
        )
    return cluster
