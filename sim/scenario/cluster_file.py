"""Read a cluster: from the catalog or a file of the user's, with any number of it changed by the scenario.

A cluster file has the fields of the scenario's ``cluster`` section, each number bare or as a fact {value,
source, confidence}, and says ``exactmap-cluster: 1``. Sections may name parts of the catalog. In the end
every number must be there.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.cluster_build import build_cluster
from exactmap.sim.scenario.document import Problems, as_mapping, take_facts, validate
from exactmap.sim.scenario.parts import expand_parts, lay_over
from exactmap.sim.scenario.schema import ClusterSection
from exactmap.sim.scenario.strict_yaml import KeyPath, Marked, dotted, raise_together, read_yaml_file
from exactmap.topology.catalog import catalog_names, catalog_path
from exactmap.topology.hardware import Cluster

__all__ = ["load_cluster", "resolve_cluster"]

_VERSION_KEY = "exactmap-cluster"
_OPTIONAL = frozenset(
    {"part", "catalog", "file", "fp32", "bf16", "fp8", "fp4", "host", "rack", "reduction", "max_ports"}
    | {"kernels", "gemm", "gemm_efficiency", "attention_efficiency", "exp_rate"}
    | {"collectives", "switches", "cables", "tiers", "planes", "oversubscription", "cable", "shape", "graph"}
    | {"gpu.idle_power", "scale_out.power", "rack.power"}
)
"""Fields that may be missing in the end: a name alone is that field of any section, a path is one field."""


def load_cluster(name_or_path: str | Path) -> Cluster:
    """A cluster of the catalog by name, or of a file by path (one that ends in ``.yaml`` or ``.yml``).

    Raises
    ------
    InvalidInputError
        If the name is unknown or the file is not a whole cluster; all problems are listed.

    Examples
    --------
    >>> load_cluster("gb300-nvl72").scale_up.domain_size
    72
    """
    text = str(name_or_path)
    key = "file" if text.endswith((".yaml", ".yml")) else "catalog"
    problems = Problems()
    section = Marked({key: text}, {}, prefix=("cluster",))
    cluster = resolve_cluster(section, Path(), problems)
    if problems.found or cluster is None:
        raise_together(problems.found, f"problems in cluster {text}")
    return cluster


def resolve_cluster(section: Marked, folder: Path, problems: Problems) -> Cluster | None:
    """Build the cluster that a scenario's ``cluster`` section asks for; problems are collected.

    Parameters
    ----------
    section
        The section as written.
    folder
        Where a relative path of a cluster file starts.
    problems
        Takes what is wrong; the result is then None.
    """
    num_before = len(problems.found)
    written = as_mapping(section.value) or {}
    if "num_gpus" in written and "hosts" in written:
        problems.add(
            InvalidInputError(
                "the size of the cluster is given twice",
                where=section.place(("hosts",)),
                got=f"num_gpus {written['num_gpus']} and hosts {written['hosts']}",
                expected="one of num_gpus, hosts",
            )
        )
    fields = {key: value for key, value in written.items() if key not in {"catalog", "file"}}
    over = _locate_files(Marked(fields, section.places, section.prefix), folder)
    is_written_out = fields == written and "gpu" in fields
    if is_written_out:
        merged = expand_parts(over, problems)
    else:
        base = _read_base(written, section, folder, problems)
        if base is None:
            validate(take_facts(over, problems)[0], ClusterSection, problems)
            return None
        merged = lay_over(expand_parts(base, problems), over, problems)
    plain, facts = take_facts(merged, problems)
    spec = validate(plain, ClusterSection, problems)
    if spec is None:
        return None
    _require(spec, (), plain, problems)
    if len(problems.found) > num_before:
        return None
    return build_cluster(spec, facts, plain, problems)


def _locate_files(document: Marked, folder: Path) -> Marked:
    """Make the paths of measurements and edges ones that start at the file that names them."""
    content = dict(as_mapping(document.value) or {})
    for key, name in (("gpu", "gemm"), ("fabric", "graph")):
        part = as_mapping(content.get(key))
        if part is not None and isinstance(part.get(name), str):
            content[key] = {**part, name: str((folder / cast(str, part[name])).resolve())}
    collectives = content.get("collectives")
    if isinstance(collectives, list):
        content["collectives"] = [
            str((folder / entry).resolve()) if isinstance(entry, str) else entry
            for entry in cast(list[object], collectives)
        ]
    return Marked(content, document.places, document.prefix) if content else document


def _base_path(written: dict[str, object], section: Marked, folder: Path, problems: Problems) -> Path | None:
    catalog, file = written.get("catalog"), written.get("file")
    given = [value for value in (catalog, file) if value is not None]
    if len(given) != 1 or not isinstance(given[0], str):
        problems.add(
            InvalidInputError(
                "a cluster needs a catalog name or a file",
                where=section.place(()),
                got=", ".join(key for key in ("catalog", "file") if key in written) or "neither",
                expected="one of catalog, file",
                hint=f"catalog: {', '.join(catalog_names())}",
            )
        )
        return None
    if isinstance(file, str):
        return folder / file
    name = given[0]
    if name not in catalog_names():
        near = get_close_matches(name, catalog_names(), 1)
        problems.add(
            InvalidInputError(
                "unknown cluster",
                where=section.place(("catalog",)),
                got=repr(name),
                expected=", ".join(catalog_names()),
                hint=f"did you mean {near[0]!r}?" if near else "for a file of your own write file: my.yaml",
            )
        )
        return None
    return catalog_path(name)


def _read_base(
    written: dict[str, object], section: Marked, folder: Path, problems: Problems
) -> Marked | None:
    """The cluster file that a section starts from."""
    path = _base_path(written, section, folder, problems)
    if path is None:
        return None
    try:
        base = read_yaml_file(path)
    except InvalidInputError as error:
        problems.add(error)
        return None
    content = dict(as_mapping(base.value) or {})
    if content.pop(_VERSION_KEY, None) != 1:
        problems.add(
            InvalidInputError(
                "not a cluster file", where=Place(path), expected=f"{_VERSION_KEY}: 1 among its fields"
            )
        )
        return None
    return _locate_files(Marked(content, base.places), path.parent)


def _require(section: BaseModel, path: KeyPath, document: Marked, problems: Problems) -> None:
    """Every number must be given somewhere; what is wrong with a section's part has been said already."""
    if getattr(section, "part", None) is not None:
        return
    for key in type(section).model_fields:
        value: object = getattr(section, key)
        inside = (*path, key)
        if isinstance(value, BaseModel):
            _require(value, inside, document, problems)
        elif isinstance(value, list):
            for index, entry in enumerate(cast(list[object], value)):
                if isinstance(entry, BaseModel):
                    _require(entry, (*inside, index), document, problems)
        elif value is None and inside != ("hosts",) and not {key, dotted(inside)} & _OPTIONAL:
            problems.add(
                InvalidInputError(
                    "a field is missing",
                    where=document.place(inside),
                    hint="a part of the catalog brings all numbers of its section: part: NAME"
                    if "part" in type(section).model_fields
                    else None,
                )
            )
