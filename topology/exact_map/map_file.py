"""Write an exact map as text: ``exactmap-map 1.0``, ranges and strides where it is regular.

docs/reference/map-format.md has the grammar. 220,000 GPUs whose racks all look alike take one line of ranks;
each irregular rack takes one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.host_list import compress_hosts
from exactmap.topology.exact_map.ranges import runs_of
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["MAJOR", "MINOR", "RankRuns", "describe_rank", "find_runs", "write_map"]

MAJOR, MINOR = 1, 0
_HOSTS_PER_LINE = 4096


@dataclass(frozen=True, slots=True)
class RankRuns:
    """`count` runs of `length` ranks each on consecutive GPUs; the runs' first GPUs are `step` apart."""

    rank: int
    length: int
    gpu: int
    count: int = 1
    step: int = 0


def find_runs(gpu: Ints) -> list[RankRuns]:
    """Regular pieces of a map, in order of ranks; together they are all of it.

    Examples
    --------
    >>> find_runs(np.array([0, 1, 4, 5, 8, 9, 3]))
    [RankRuns(rank=0, length=2, gpu=0, count=3, step=4), RankRuns(rank=6, length=1, gpu=3, count=1, step=0)]
    """
    firsts, lengths = runs_of(gpu)
    starts = np.cumsum(lengths) - lengths
    out: list[RankRuns] = []
    for rank, length, first in zip(starts.tolist(), lengths.tolist(), firsts.tolist(), strict=True):
        last = out[-1] if out else None
        if last is not None and last.length == length:
            step = first - (last.gpu + (last.count - 1) * last.step)
            if last.count == 1 or step == last.step:
                out[-1] = RankRuns(last.rank, length, last.gpu, last.count + 1, step)
                continue
        out.append(RankRuns(rank, length, first))
    return out


def describe_rank(mesh: Mesh, rank: int) -> str:
    """Coordinates of a rank in one word, innermost axis first.

    Examples
    --------
    >>> describe_rank(Mesh(tp=2, pp=2), 3)
    'tp1,cp0,ep0,dp0,pp1'
    """
    coords = mesh.coords(rank)
    return ",".join(f"{axis}{coords.on(axis)}" for axis in mesh.order)


def write_map(
    exact_map: ExactMap,
    *,
    cluster: str,
    plan_sha256: str | None = None,
    hosts: Sequence[str] = (),
    rows: bool = False,
) -> bytes:
    """The map as a file.

    Parameters
    ----------
    exact_map
        The map.
    cluster
        Name of the cluster.
    plan_sha256
        Hash of the plan that it is for, if there is one.
    hosts
        Name of each host of the cluster; empty: they have none.
    rows
        One line for each rank, instead of ranges and strides.
    """
    lines = "".join(f"{line}\n" for line in _lines(exact_map, cluster, plan_sha256, hosts, rows=rows))
    body = lines.encode("ascii")
    return f"exactmap-map {MAJOR}.{MINOR}\nbody sha256={sha256(body).hexdigest()}\n".encode("ascii") + body


def _lines(
    exact_map: ExactMap, cluster: str, plan_sha256: str | None, hosts: Sequence[str], *, rows: bool
) -> Iterator[str]:
    mesh, machine, request = exact_map.mesh, exact_map.machine, exact_map.request
    if plan_sha256 is not None:
        yield f"plan sha256={plan_sha256}"
    name = "".join(char if "!" <= char <= "~" else "_" for char in cluster) or "-"
    yield (
        f"cluster name={name} gpus={machine.num_gpus} rack={machine.domain_size} "
        f"host={machine.gpus_per_host} used={machine.used_per_domain} rails={machine.rails}"
    )
    sizes = " ".join(f"{axis}={mesh.size(axis)}" for axis in Axis)
    yield f"mesh {sizes} order={','.join(mesh.order)}"
    yield f"spares {request.spares}"
    yield from (f"exclude {each}" for each in request.exclude)
    yield from (f"require {each}" for each in request.require)
    for first in range(0, len(hosts), _HOSTS_PER_LINE):
        yield f"hosts {compress_hosts(hosts[first : first + _HOSTS_PER_LINE])}"
    if rows:
        runs = [RankRuns(rank, 1, gpu) for rank, gpu in enumerate(exact_map.gpu.tolist())]
    else:
        runs = find_runs(exact_map.gpu)
    firsts = np.array([run.gpu for run in runs], dtype=np.int64)
    leaves = (
        ["-"] * len(runs)
        if exact_map.fabric_of is None
        else [str(leaf) for leaf in exact_map.fabric_of().leaf(firsts).tolist()]
    )
    for run, leaf in zip(runs, leaves, strict=True):
        again = f" x={run.count} step={run.step}" if run.count > 1 else ""
        yield (
            f"ranks {run.rank} n={run.length} gpu={run.gpu}{again} at={describe_rank(mesh, run.rank)} "
            f"host={run.gpu // machine.gpus_per_host} place={run.gpu % machine.gpus_per_host} "
            f"rack={run.gpu // machine.domain_size} leaf={leaf}"
        )
    yield f"end ranks={mesh.num_ranks}"
