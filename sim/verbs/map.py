"""Lay a plan's or a scenario's ranks onto GPUs, explain what that crosses, and write it down."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.files import read_bytes, write_atomically
from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.verbs.host_names import host_names, utf8_text
from exactmap.sim.verbs.input_kind import InputKind, refuse_others
from exactmap.sim.verbs.plan_mesh import mesh_on
from exactmap.topology.exact_map.budget import MapBudget, count_gpus
from exactmap.topology.exact_map.crossing import AxisTraffic, axis_traffic
from exactmap.topology.exact_map.exact_map import ExactMap, GroupCount
from exactmap.topology.exact_map.exclusions import excluded_gpus
from exactmap.topology.exact_map.host_list import compress_hosts, default_hosts
from exactmap.topology.exact_map.launch_files import (
    read_host_file,
    read_rank_file,
    read_slurm_file,
    write_host_file,
    write_rank_file,
    write_slurm_file,
)
from exactmap.topology.exact_map.map_file import write_map
from exactmap.topology.exact_map.map_reader import MAX_MAP_BYTES, MapFile, read_map
from exactmap.topology.exact_map.place import exact_map_of, fabric_of, machine_of
from exactmap.topology.exact_map.verify import verified_map
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh

__all__ = ["MapOutcome", "map"]


@dataclass(frozen=True, slots=True)
class MapOutcome:
    """The map and what is said of it.

    Parameters
    ----------
    path
        The plan or scenario.
    plan_sha256
        Hash of the plan that the map is for; None if only sizes were given.
    cluster
        The machine.
    exact_map
        The map.
    budget
        GPUs by what becomes of them.
    traffic
        What each axis crosses.
    shapes
        Axes -> groups by shape.
    hosts
        Compressed names of the hosts at work, in the order in which ranks reach them.
    files
        What was written.
    """

    path: str
    plan_sha256: str | None
    cluster: Cluster
    exact_map: ExactMap
    budget: MapBudget
    traffic: tuple[AxisTraffic, ...]
    shapes: tuple[tuple[tuple[Axis, ...], tuple[GroupCount, ...]], ...]
    hosts: str
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The outcome as a JSON-ready document."""
        mesh, request, budget = self.exact_map.mesh, self.exact_map.request, self.budget
        return {
            "schema_version": 1,
            "kind": "map",
            "path": self.path,
            "plan_sha256": self.plan_sha256,
            "cluster": self.cluster.name,
            "mesh": {axis.value: mesh.size(axis) for axis in Axis},
            "order": [axis.value for axis in mesh.order],
            "spares": request.spares.value,
            "exclude": [str(each) for each in request.exclude],
            "require": [str(each) for each in request.require],
            "num_installed": budget.installed,
            "num_excluded": budget.excluded,
            "num_usable": budget.usable,
            "num_used": budget.used,
            "num_spare": budget.spare,
            "num_idle": budget.idle,
            "reasons": list(budget.reasons),
            "racks": [asdict(rack) for rack in budget.racks],
            "axes": [_axis_document(each) for each in self.traffic],
            "groups": [
                {"axes": [axis.value for axis in axes], "shapes": [asdict(shape) for shape in shapes]}
                for axes, shapes in self.shapes
            ],
            "hosts": self.hosts,
            "files": [str(path) for path in self.files],
        }


def _axis_document(traffic: AxisTraffic) -> dict[str, object]:
    return {
        "axis": traffic.axis.value,
        "size": traffic.size,
        "num_groups": traffic.num_groups,
        "num_hops_inside": traffic.inside,
        "num_hops_by_tier": list(traffic.by_tier),
        "num_hops_on_rail": traffic.on_rail,
        "most_latency_ns": traffic.most_latency_ns,
        "links": [asdict(each) for each in traffic.links],
    }


def map(  # noqa: A001 - the verb's name
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    cluster: str | Path | None = None,
    read: str | Path | None = None,
    hosts: str | None = None,
    out: str | Path | None = None,
    rows: bool = False,
    hostfile: str | Path | None = None,
    rankfile: str | Path | None = None,
    slurm: str | Path | None = None,
    seed: int = 0,
) -> MapOutcome:
    """Lay ranks onto physical GPUs and explain the map.

    Parameters
    ----------
    path
        A plan, or a scenario; of a scenario that leaves sizes of axes open the best plan is mapped.
    overrides
        ``a.b=c``; beside a plan of ``cluster`` and ``map`` alone.
    cluster
        For a plan: a name of the catalog, a cluster file, or a scenario whose cluster and map it takes.
    read
        Take the map from this file (a map, a rank file, a host file, a list of a host per task) and check it.
    hosts
        Names of all hosts of the cluster: as ``node[0001-0018]``, or a file with one a line.
    out
        Write the map here.
    rows
        Write a line for each rank, instead of ranges and strides.
    hostfile, rankfile, slurm
        Write Open MPI's host file, its rank file, a host per task for ``SLURM_HOSTFILE``.
    seed
        Of the paths that flows choose in the fabric.

    Raises
    ------
    InvalidInputError
        If an input is wrong.
    InfeasibleError
        If the mesh does not fit, or a constraint cannot be kept.
    """
    mesh, machine_room, plan_sha256, group_axes = _inputs(path, overrides, cluster)
    num_hosts = machine_of(machine_room).num_hosts
    names = default_hosts(num_hosts) if hosts is None else host_names(hosts, num_hosts)
    is_named = hosts is not None
    if read is None:
        laid = exact_map_of(machine_room, mesh)
    else:
        laid, found = _read(read, mesh, machine_room, names)
        if found is not None:
            names = list(found.hosts) if found.hosts and hosts is None else names
            is_named = is_named or bool(found.hosts)
            _check_plan(read, found, plan_sha256)
    used = np.unique(laid.machine.host(laid.gpu), return_index=True)
    in_order = used[0][np.argsort(used[1], kind="stable")].tolist()
    files: list[Path] = []
    if out is not None:
        content = write_map(
            laid,
            cluster=machine_room.name,
            plan_sha256=plan_sha256,
            hosts=names if is_named else (),
            rows=rows,
        )
        files.append(_written(out, content))
    for target, write in (
        (hostfile, write_host_file),
        (rankfile, write_rank_file),
        (slurm, write_slurm_file),
    ):
        if target is not None:
            files.append(_written(target, write(laid, names).encode("ascii")))
    wanted = [axis for axis in laid.mesh.order if laid.mesh.size(axis) > 1]
    sets = dict.fromkeys([*((axis,) for axis in wanted), *group_axes])
    return MapOutcome(
        path=str(path),
        plan_sha256=plan_sha256,
        cluster=machine_room,
        exact_map=laid,
        budget=count_gpus(laid),
        traffic=tuple(axis_traffic(laid, axis, seed) for axis in laid.mesh.order),
        shapes=tuple((axes, laid.count_shapes(axes)) for axes in sets),
        hosts=compress_hosts([names[host] for host in in_order]),
        files=tuple(files),
    )


def _inputs(
    path: str | Path, overrides: Sequence[str], cluster: str | Path | None
) -> tuple[Mesh, Cluster, str | None, list[tuple[Axis, ...]]]:
    """Mesh, cluster, hash of the plan, and the axes of its groups."""
    kind = refuse_others(path, "a plan or a scenario", InputKind.PLAN, InputKind.SCENARIO)
    if kind is InputKind.SCENARIO:
        if cluster is not None:
            raise InvalidInputError(
                "a scenario names its own cluster", where=str(path), got=f"--cluster {cluster}"
            )
        scenario = load_scenario(path, overrides)
        space = scenario.parallel
        choices = (space.tp, space.cp, space.ep, space.pp, space.replicas or None)
        if all(choice is not None and len(choice) == 1 for choice in choices):
            tp, cp, ep, pp, dp = (choice[0] for choice in choices if choice is not None)
            mesh = Mesh(tp, cp, ep, pp, dp, order=scenario.cluster.map_request.order)
            return mesh, scenario.cluster, None, []
        from exactmap.sim.verbs.plan import plan as choose

        chosen = choose(path, overrides)
        plan, sha256, room = chosen.plan, chosen.sha256, scenario.cluster
    else:
        from exactmap.sim.plan.check import load_plan

        if cluster is None:
            raise InvalidInputError(
                "a plan knows no machine",
                where=str(path),
                expected="--cluster: a name of the catalog, a cluster file, or a scenario",
            )
        plan, sha256 = load_plan(path)
        room = load_mapped_cluster(cluster, overrides)
    mesh = mesh_on(plan, room)
    order = mesh.order
    groups = [
        axes
        for group in plan.groups
        if not group.pp
        and len(axes := tuple(axis for axis in order if axis in group.axes and mesh.size(axis) > 1)) > 1
    ]
    return mesh, room, sha256, groups


def _read(
    path: str | Path, mesh: Mesh, cluster: Cluster, names: Sequence[str]
) -> tuple[ExactMap, MapFile | None]:
    """A map from a file, checked against mesh and cluster."""
    data = read_bytes(path, MAX_MAP_BYTES, "map")
    machine = machine_of(cluster)
    if data.removeprefix(BOM_UTF8).startswith(b"exactmap-map"):
        found = read_map(
            data,
            path,
            lambda said: fabric_of(cluster) if said == machine else None,
            extra=cluster.map_request,
        )
        for what, got, expected in (
            ("mesh", found.exact_map.mesh, mesh),
            ("cluster", found.exact_map.machine, machine),
        ):
            if got != expected:
                raise InvalidInputError(
                    f"the map is of another {what}", where=str(path), got=str(got), expected=str(expected)
                )
        return found.exact_map, found
    text = utf8_text(data, path)
    first = next((line for line in text.splitlines() if line.partition("#")[0].strip()), "")
    reader = read_slurm_file
    if first.split()[:1] == ["rank"]:
        reader = read_rank_file
    elif "slots" in first:
        reader = read_host_file
    request = cluster.map_request
    excluded = excluded_gpus(machine, request.exclude, fabric_of(cluster))
    read = reader(text, path, machine, excluded, names)
    return verified_map(read, mesh, machine, request, fabric_of(cluster)), None


def _check_plan(path: str | Path, found: MapFile, plan_sha256: str | None) -> None:
    if found.plan_sha256 is not None and plan_sha256 is not None and found.plan_sha256 != plan_sha256:
        raise InvalidInputError(
            "the map is for another plan", where=str(path), got=found.plan_sha256, expected=plan_sha256
        )


def _written(path: str | Path, content: bytes) -> Path:
    write_atomically(Path(path), content)
    return Path(path)
