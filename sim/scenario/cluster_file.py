"""Read a cluster: from the catalog or a file of the user's, with any number of it changed by the scenario.

A cluster file has the fields of the scenario's ``cluster`` section, each number bare or as a fact {value,
source, confidence}, and says ``exactmap-cluster: 1``. In the end every number must be there.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.document import Problems, as_mapping, merge, take_facts, validate
from exactmap.sim.scenario.schema import ClusterSection, FabricSection
from exactmap.sim.scenario.strict_yaml import Marked, raise_together, read_yaml_file
from exactmap.topology.catalog import catalog_names, catalog_path
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.hardware import GPU, Cluster, Fact, ScaleOut, ScaleUp

__all__ = ["load_cluster", "resolve_cluster"]

_VERSION_KEY = "exactmap-cluster"
_OPTIONAL = frozenset(
    {"catalog", "file", "hosts", "fp32", "bf16", "fp8", "fp4"}
    | {"switches", "tiers", "oversubscription", "cable", "shape"}
)


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
    over = {key: value for key, value in written.items() if key not in {"catalog", "file"}}
    merged = Marked(over, section.places, section.prefix)
    origin = "the cluster section"
    is_written_out = over == written and "gpu" in over
    if not is_written_out:
        base = _read_base(written, section, folder, problems)
        if base is None:
            return None
        merged = merge(base, merged)
        origin = str(base.place(()).file)
    plain, facts = take_facts(merged, problems)
    spec = validate(plain, ClusterSection, problems)
    if spec is None:
        return None
    _require(spec, (), plain, problems, origin)
    if len(problems.found) > num_before:
        return None
    return _build(spec, facts, plain, problems)


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
    return Marked(content, base.places)


def _require(
    section: BaseModel, path: tuple[str, ...], document: Marked, problems: Problems, origin: str
) -> None:
    """Every number of a cluster must be given somewhere."""
    for key in type(section).model_fields:
        value: object = getattr(section, key)
        if isinstance(value, BaseModel):
            _require(value, (*path, key), document, problems, origin)
        elif value is None and key not in _OPTIONAL:
            problems.add(
                InvalidInputError(
                    "a field is missing",
                    where=document.place((*path, key)),
                    hint=f"add it to {origin}, or start from catalog: {catalog_names()[0]}",
                )
            )


def _build(
    spec: ClusterSection, facts: dict[str, Fact], document: Marked, problems: Problems
) -> Cluster | None:
    gpu, up, out = spec.gpu, spec.scale_up, spec.scale_out
    peaks = {dtype: peak for dtype, peak in gpu.peak.model_dump().items() if peak is not None}
    num_gpus, gpus_per_host = spec.num_gpus or 0, spec.gpus_per_host or 0
    if spec.hosts is not None:
        num_gpus = spec.hosts * gpus_per_host
    # Facts of numbers that the scenario changed have gone with the merge; those left speak of what is used.
    try:
        return Cluster(
            name=spec.name or "",
            num_gpus=num_gpus,
            gpus_per_host=gpus_per_host,
            used_per_domain=spec.used_per_domain or 0,
            gpu=GPU(
                name=gpu.name or "",
                curves=gpu.curves or "",
                peak_flop_per_s=peaks,
                memory_bytes=gpu.memory or 0,
                memory_bytes_per_s=gpu.memory_bandwidth or 0,
                memory_efficiency=gpu.memory_efficiency or 0.0,
                launch_ns=gpu.launch or 0,
                reserved_bytes=gpu.reserved_memory or 0,
                power_w=gpu.power or 0,
            ),
            scale_up=ScaleUp(
                name=up.name or "",
                domain_size=up.domain_size or 0,
                bytes_per_s=up.bandwidth or 0,
                efficiency=up.efficiency or 0.0,
                latency_ns=up.latency or 0,
            ),
            scale_out=ScaleOut(
                name=out.name or "",
                bytes_per_s=out.bandwidth or 0,
                efficiency=out.efficiency or 0.0,
                latency_ns=out.latency or 0,
            ),
            fabric=_fabric(spec.fabric),
            facts=facts,
        )
    except InvalidInputError as error:
        field = error.where.field if isinstance(error.where, Place) else None
        path = tuple((field or "").removeprefix("cluster.").split(".")) if field else ()
        problems.add(error, document.place(path))
        return None


def _fabric(section: FabricSection) -> FabricSpec:
    return FabricSpec(
        kind=FabricKind(section.kind),
        switches=tuple(
            Switch(
                name=switch.name,
                num_ports=switch.ports,
                port_bytes_per_s=switch.port_rate,
                max_ports=switch.max_ports or switch.ports,
                hop_ns=switch.hop,
                power_w=switch.power,
            )
            for switch in section.switches or ()
        ),
        num_tiers=section.tiers or 0,
        planes=section.planes,
        rails=section.rails,
        oversubscription=tuple(section.oversubscription or ()),
        cable_ns=section.cable or 0,
        shape=tuple(section.shape or ()),
    )
