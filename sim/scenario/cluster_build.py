"""A cluster from its checked section: the schema's optional fields become the hardware's plain numbers."""

from __future__ import annotations

from pathlib import Path

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.collective_files import read_collective_files
from exactmap.sim.scenario.document import Problems
from exactmap.sim.scenario.edge_list import find_graph_problems, read_edge_list
from exactmap.sim.scenario.schema import (
    CableSection,
    ClusterSection,
    FabricSection,
    GpuSection,
    HostSection,
    PeakSection,
    RackSection,
    SwitchSection,
)
from exactmap.sim.scenario.strict_yaml import Marked
from exactmap.topology.fabric.spec import Cable, FabricKind, FabricSpec, Switch
from exactmap.topology.fabric.user_graph import Edge
from exactmap.topology.gemm_table import GemmTable, read_gemm_table
from exactmap.topology.hardware import GPU, Cluster, Fact, Host, Rack, ScaleOut, ScaleUp

__all__ = ["build_cable", "build_cluster", "build_switch"]

_FASTEST = 1.05
"""A timed product may be so much faster than the peak: clocks above the rated one, a rounded peak."""


def build_cluster(
    spec: ClusterSection, facts: dict[str, Fact], document: Marked, problems: Problems
) -> Cluster | None:
    """The cluster of a section in which no number is missing; what does not fit together is collected.

    Parameters
    ----------
    spec
        The section.
    facts
        Where its numbers come from.
    document
        The section as written, for places.
    problems
        Takes what is wrong; the result is then None.
    """
    num_before = len(problems.found)
    up, out = spec.scale_up, spec.scale_out
    num_gpus, gpus_per_host = spec.num_gpus or 0, spec.gpus_per_host or 0
    if spec.hosts is not None:
        num_gpus = spec.hosts * gpus_per_host
    gpu = _gpu(spec.gpu, document, problems)
    # Facts of numbers that the scenario changed have gone with the merge; those left speak of what is used.
    try:
        cluster = Cluster(
            name=spec.name or "",
            num_gpus=num_gpus,
            gpus_per_host=gpus_per_host,
            used_per_domain=spec.used_per_domain or 0,
            gpu=gpu,
            scale_up=ScaleUp(
                name=up.name or "",
                domain_size=up.domain_size or 0,
                bytes_per_s=up.bandwidth or 0,
                efficiency=up.efficiency or 0.0,
                latency_ns=up.latency or 0,
                reduction=up.reduction or "",
            ),
            scale_out=ScaleOut(
                name=out.name or "",
                bytes_per_s=out.bandwidth or 0,
                efficiency=out.efficiency or 0.0,
                latency_ns=out.latency or 0,
                max_ports=out.max_ports or 0,
                power_w=out.power or 0,
            ),
            fabric=_fabric(spec, num_gpus, document, problems),
            host=None if spec.host is None else _host(spec.host),
            rack=None if spec.rack is None else _rack(spec.rack),
            facts=facts,
            collectives=read_collective_files(spec, document, problems),
        )
    except InvalidInputError as error:
        field = error.where.field if isinstance(error.where, Place) else None
        path = tuple((field or "").removeprefix("cluster.").split(".")) if field else ()
        problems.add(error, document.place(path))
        return None
    return cluster if len(problems.found) == num_before else None


def build_switch(section: SwitchSection) -> Switch:
    """A switch of a section in which no number is missing."""
    return Switch(
        name=section.name or "",
        num_ports=section.ports or 0,
        port_bytes_per_s=section.port_rate or 0,
        max_ports=section.max_ports or section.ports or 0,
        hop_ns=section.hop or 0,
        power_w=section.power or 0,
        reduction=section.reduction or "",
    )


def build_cable(section: CableSection) -> Cable:
    """A cable of a section in which no number is missing."""
    return Cable(
        name=section.name or "",
        bytes_per_s=section.bandwidth or 0,
        power_w=section.power or 0,
        ns_per_m=section.ns_per_m or 0.0,
        reach_m=section.reach_m or 0,
    )


def _gpu(section: GpuSection, document: Marked, problems: Problems) -> GPU:
    gpu = GPU(
        name=section.name or "",
        curves=section.curves or "",
        peak_flop_per_s=_peaks(section.peak),
        memory_bytes=section.memory or 0,
        memory_bytes_per_s=section.memory_bandwidth or 0,
        memory_efficiency=section.memory_efficiency or 0.0,
        launch_ns=section.launch or 0,
        reserved_bytes=section.reserved_memory or 0,
        power_w=section.power or 0,
        idle_power_w=section.idle_power or 0,
        exp_per_s=section.exp_rate or 0,
        recipe_peak_flop_per_s=_peaks(section.recipe_peak),
        kernels=section.kernels or "",
        gemm_efficiency=1.0 if section.gemm_efficiency is None else section.gemm_efficiency,
        attention_efficiency=0.4 if section.attention_efficiency is None else section.attention_efficiency,
        gemm=_gemm(section, document, problems),
    )
    if gpu.reserved_bytes >= gpu.memory_bytes:
        problems.add(
            InvalidInputError(
                "nothing is left of the memory",
                where=document.place(("gpu", "reserved_memory")),
                got=f"{gpu.reserved_bytes:,} bytes reserved",
                expected=f"less than {gpu.memory_bytes:,}",
            )
        )
    for row in () if gpu.gemm is None else gpu.gemm.rows:
        assert gpu.gemm is not None
        peak = gpu.peak_flop_per_s.get(row.dtype)
        if peak is None or row.flop_per_s > _FASTEST * peak:
            limit = "no such format" if peak is None else f"at most {peak / 1e12:g} TFLOP/s"
            problems.add(
                InvalidInputError(
                    f"a product that {gpu.name} cannot have computed",
                    where=Place(gpu.gemm.path, row.line),
                    got=f"{row.dtype} at {row.flop_per_s / 1e12:.4g} TFLOP/s",
                    expected=limit,
                    hint="times are in microseconds; the peak is gpu.peak",
                )
            )
    return gpu


def _peaks(section: PeakSection) -> dict[str, int]:
    peaks: dict[str, int | None] = section.model_dump()
    return {dtype: peak for dtype, peak in peaks.items() if peak is not None}


def _gemm(section: GpuSection, document: Marked, problems: Problems) -> GemmTable | None:
    if section.gemm is None:
        return None
    try:
        return read_gemm_table(section.gemm)
    except InvalidInputError as error:
        if not error.problems and isinstance(error.where, Place) and error.where.line is None:
            # The file itself is at fault, so what names it helps more than its own name.
            place = document.place(("gpu", "gemm"))
            error = InvalidInputError(error.what, where=place, got=f"{section.gemm}: {error.got}")
        problems.add(error)
        return None


def _host(section: HostSection) -> Host:
    return Host(
        name=section.name or "",
        cpu=section.cpu or "",
        num_cpus=section.cpus or 0,
        num_cores=section.cores or 0,
        memory_bytes=section.memory or 0,
        memory_bytes_per_s=section.memory_bandwidth or 0,
        link=section.link or "",
        link_bytes_per_s=section.link_bandwidth or 0,
        to_gpu_bytes_per_s=section.to_gpu or 0,
        from_gpu_bytes_per_s=section.from_gpu or 0,
        power_w=section.power or 0,
        idle_power_w=section.idle_power or 0,
    )


def _rack(section: RackSection) -> Rack:
    return Rack(
        name=section.name or "",
        num_hosts=section.hosts or 0,
        num_switch_trays=section.switch_trays or 0,
        chips_per_tray=section.chips_per_tray or 0,
        tray_power_w=section.tray_power or 0,
        tray_idle_power_w=section.tray_idle_power or 0,
        power_w=section.power or 0,
    )


def _fabric(spec: ClusterSection, num_gpus: int, document: Marked, problems: Problems) -> FabricSpec:
    section = spec.fabric
    switches = tuple(build_switch(switch) for switch in section.switches or ())
    for index, switch in enumerate(switches):
        if switch.max_ports < switch.num_ports:
            problems.add(
                InvalidInputError(
                    "fewer ports when all are split than at full rate",
                    where=document.place(("fabric", "switches", index, "max_ports")),
                    got=f"max_ports {switch.max_ports}, ports {switch.num_ports}",
                    expected=f"at least {switch.num_ports}",
                    hint="the two go together",
                )
            )
    planes = section.planes or _fewest_planes(spec, switches)
    most = spec.scale_out.max_ports
    if most is not None and planes > most:
        problems.add(
            InvalidInputError(
                "the interface cannot be split over so many planes",
                where=document.place(("fabric", "planes")),
                got=f"{planes} planes",
                expected=f"at most {most} with {spec.scale_out.name}",
                hint=None if section.planes else "so many ports of its switches are as fast as the interface",
            )
        )
    return FabricSpec(
        kind=FabricKind(section.kind),
        switches=switches,
        num_tiers=section.tiers or 0,
        planes=planes,
        rails=section.rails,
        oversubscription=tuple(section.oversubscription or ()),
        cable_ns=section.cable or 0,
        shape=tuple(section.shape or ()),
        graph=_graph(section, num_gpus, switches, document, problems),
        cables=tuple(build_cable(cable) for cable in section.cables or ()),
    )


def _fewest_planes(spec: ClusterSection, switches: tuple[Switch, ...]) -> int:
    """An interface faster than a port takes several; a graph's rates are its own."""
    if spec.fabric.kind == "graph" or not switches:
        return 1
    slowest_bytes_per_s = min(switch.port_bytes_per_s for switch in switches)
    return max(-(-(spec.scale_out.bandwidth or 0) // slowest_bytes_per_s), 1)


def _graph(
    section: FabricSection,
    num_gpus: int,
    switches: tuple[Switch, ...],
    document: Marked,
    problems: Problems,
) -> tuple[Edge, ...]:
    """Edges of a graph of one's own, checked; what is wrong is told with its line."""
    where = document.place(("fabric", "graph"))
    if (section.kind == "graph") != (section.graph is not None):
        what = "a fabric of this kind needs its edges" if section.graph is None else "only a graph has edges"
        hint = "fabric.graph: my-edges.csv, with columns a,b,rate,tier" if section.graph is None else None
        problems.add(InvalidInputError(what, where=where, got=f"kind {section.kind}", hint=hint))
        return ()
    if section.graph is None:
        return ()
    if isinstance(section.graph, str):
        path = Path(section.graph)
        try:
            edges, lines = read_edge_list(path)
        except InvalidInputError as error:
            problems.add(error)
            return ()
    else:
        path, lines = None, ()
        edges = tuple((edge.a, edge.b, float(edge.rate), edge.tier) for edge in section.graph)

    def place(edge: int | None) -> Place:
        if path is not None:
            return Place(path, None if edge is None else lines[edge])
        return where if edge is None else document.place(("fabric", "graph", edge))

    for problem in find_graph_problems(edges, num_gpus, switches, place):
        problems.add(problem)
    return edges
