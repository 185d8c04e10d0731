"""Files of a simulation of every GPU: tables as CSV, pictures as PNG, the result as JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import numpy as np

from exactmap.files import write_atomically
from exactmap.sim.report.quantity import show_share, show_time
from exactmap.topology.state.components import ComponentKind
from exactmap.topology.state.factors import ONE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exactmap.sim.report.whole_cluster import WholeResult
    from exactmap.sim.resilience.monte_carlo import WholeSteps
    from exactmap.sim.resilience.whole_cluster import WholeCluster
    from exactmap.topology.links import Floats, Ints

__all__ = ["write_whole"]

MOST_GPU_ROWS = 1000
_LEAST_NAMED = 0.01  # parts of the largest blame


def write_whole(
    whole: WholeCluster, steps: WholeSteps, result: WholeResult, folder: Path, *, pictures: bool
) -> tuple[Path, ...]:
    """Write ``whole-cluster.json``, ``step-times.csv``, ``gpus.csv`` and, if wanted, the pictures."""
    files = [folder / "whole-cluster.json", folder / "step-times.csv", folder / "gpus.csv"]
    write_atomically(files[0], json.dumps(result.to_dict(), indent=1) + "\n")
    write_atomically(files[1], _csv(("step", "step_ns", "period_ns", "latest_replica"), _step_rows(steps)))
    columns = ("gpu", "host", "rack", "leaf", "pp", "dp", "ep", "cp", "tp")
    numbers = ("work_slower_percent", "interface_slower_percent", "charged_ns", "lasting_ns")
    write_atomically(files[2], _csv((*columns, *numbers), _gpu_rows(whole, result)))
    if pictures:
        files += _draw(whole, steps, result, folder)
    return tuple(files)


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _step_rows(steps: WholeSteps) -> Iterable[tuple[object, ...]]:
    latest = steps.replica_ns.argmax(axis=1).tolist()
    return zip(range(len(latest)), steps.makespan_ns.tolist(), steps.period_ns.tolist(), latest, strict=True)


def _gpu_rows(whole: WholeCluster, result: WholeResult) -> Iterable[tuple[object, ...]]:
    """GPUs with the largest charges, then the slowest."""
    state = whole.state
    charged: dict[int, tuple[int, int]] = {}
    for entry in result.by_component:
        if entry.component.kind in {ComponentKind.GPU, ComponentKind.INTERFACE}:
            total, lasting = charged.get(entry.component.number, (0, 0))
            charged[entry.component.number] = (total + entry.total_ns, lasting + entry.lasting_ns)
    gpus = whole.gpu.ravel()
    slower = _slower(whole, gpus)
    totals = np.array([charged.get(gpu, (0, 0))[0] for gpu in gpus.tolist()], dtype=np.int64)
    order = np.lexsort((gpus, -slower, -totals))[:MOST_GPU_ROWS]
    coords = np.stack(np.unravel_index(order, whole.gpu.shape), axis=1)
    interface = 100 * (state.interface[gpus[order]] / ONE - 1)
    hosts, racks = state.host_of(gpus[order]), state.rack_of(gpus[order])
    for row, at in enumerate(order.tolist()):
        gpu = int(gpus[at])
        pp, dp, ep, cp, tp = coords[row].tolist()
        yield (
            *(gpu, int(hosts[row]), int(racks[row]), int(state.leaves.leaf[gpu]), pp, dp, ep, cp, tp),
            *(f"{100 * slower[at]:.3f}", f"{interface[row]:.3f}", *charged.get(gpu, (0, 0))),
        )


def _slower(whole: WholeCluster, gpus: Ints) -> Floats:
    """How much longer works take on GPUs for good."""
    state = whole.state
    own = state.gpu[gpus] / ONE
    return np.asarray(own * (state.place_factor(gpus) / ONE) - 1.0)


def _draw(whole: WholeCluster, steps: WholeSteps, result: WholeResult, folder: Path) -> list[Path]:
    from exactmap.sim.report.pictures import save_figure
    from exactmap.sim.report.rack_map import RackMap, draw_histograms, draw_rack_map
    from exactmap.sim.resilience.latest import nominal_own_ns

    gpus = whole.gpu.ravel()
    racks = whole.state.rack_of(gpus)
    num = len(whole.state.rack)
    count = np.bincount(racks, minlength=num)
    with np.errstate(invalid="ignore"):
        slower = np.bincount(racks, weights=_slower(whole, gpus), minlength=num) / count
    most = max((entry.total_ns for entry in result.by_rack), default=0)
    named = [
        (entry.component.number, show_time(entry.total_ns))
        for entry in result.by_rack
        if entry.total_ns > _LEAST_NAMED * most
    ]
    title = (
        f"{result.cluster}: {result.num_gpus_used:,} of {result.num_gpus_installed:,} GPUs; "
        f"steps {show_share(result.slowdown)} longer than nominal"
    )
    files = [folder / "racks.png", folder / "histograms.png"]
    save_figure(draw_rack_map(RackMap(title, slower, named)), files[0])
    histograms = draw_histograms(
        steps.makespan_ns, steps.replica_ns, whole.nominal_ns, nominal_own_ns(whole), title
    )
    save_figure(histograms, files[1])
    return files
