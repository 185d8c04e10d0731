"""How long exact maps take, from 1,000 to 220,000 GPUs: medians of five, in milliseconds.

python tests/bench/exact_map.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.exact_map.crossing import axis_traffic
from exactmap.topology.exact_map.map_file import write_map
from exactmap.topology.exact_map.map_reader import read_map
from exactmap.topology.exact_map.place import exact_map_of, fabric_of
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh

TURNS = 5
REPLICAS = (1, 4, 16, 63)
STEPS = ("plain", "with requests", "dp shape", "dp counts", "dp traffic", "write", "read")
REQUEST = MapRequest(
    spares=Spares.RAILS,
    exclude=tuple(map(Exclusion.parse, ("gpu 17", "tray 100..110", "rack 12", "rack 7 gpu 3"))),
    require=tuple(map(Constraint.parse, ("tp within rack", "dp along rails"))),
)


def median_ms(work: Callable[[], object]) -> float:
    """Median time of a call."""
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def times_ms(cluster: Cluster, mesh: Mesh) -> list[float]:
    """Median time of each step for one mesh."""
    asked = replace(cluster, map_request=REQUEST)
    laid = exact_map_of(asked, mesh)
    data = write_map(laid, cluster=cluster.name)
    steps: tuple[Callable[[], object], ...] = (
        lambda: exact_map_of(cluster, mesh),
        lambda: exact_map_of(asked, mesh),
        lambda: exact_map_of(cluster, mesh).group_shape([Axis.DP]),
        lambda: laid.count_shapes([Axis.DP]),
        lambda: axis_traffic(laid, Axis.DP),
        lambda: write_map(laid, cluster=cluster.name),
        lambda: read_map(data, "map", lambda _machine: fabric_of(asked)),
    )
    return [median_ms(step) for step in steps]


def main() -> None:
    """Time each step at each size."""
    base = replace(load_cluster("gb300-nvl72"), used_per_domain=64)
    print(f"{'GPUs':>9} {'ranks':>9} " + " ".join(f"{step:>13}" for step in STEPS))
    for replicas in REPLICAS:
        mesh = Mesh(tp=16, cp=2, pp=96, dp=replicas)
        num_gpus = 220_000 if replicas == REPLICAS[-1] else (mesh.num_ranks // 64 + 16) * 72
        row = times_ms(replace(base, num_gpus=num_gpus), mesh)
        print(f"{num_gpus:9,} {mesh.num_ranks:9,} " + " ".join(f"{each:13.1f}" for each in row))


if __name__ == "__main__":
    main()
