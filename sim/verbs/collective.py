"""Time of one collective on a cluster: by which algorithm, over which tiers, and why not another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.scenario.units import parse_bytes
from exactmap.topology.collectives import Algorithm, Collective

if TYPE_CHECKING:
    from exactmap.topology.collectives import CandidateTime, CollectiveTime
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.mapping import GroupShape

__all__ = ["CollectiveReport", "Priced", "collective"]

MAX_SIZES = 64
_Name = TypeVar("_Name", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Priced:
    """The collective at one size.

    Parameters
    ----------
    num_bytes
        Full buffer.
    time
        What was chosen or asked for.
    candidates
        All ways, the chosen one first.
    """

    num_bytes: int
    time: CollectiveTime
    candidates: tuple[CandidateTime, ...]

    def to_dict(self) -> dict[str, object]:
        """The size as plain data."""
        time = self.time
        return {
            "num_bytes": self.num_bytes,
            "algorithm": time.algorithm.value,
            "time_ns": time.time_ns,
            "bus_bytes_per_s": round(time.bus_bytes_per_s),
            "latency_ns": time.latency_ns,
            "tier_ns": time.tier_ns,
            "confidence": time.confidence.value,
            "extrapolated": time.extrapolated,
            "candidates": [
                {
                    "algorithm": way.algorithm.value,
                    "time_ns": way.time_ns,
                    "bound": way.bound or None,
                    "chosen": way.chosen,
                    "why": way.why,
                }
                for way in self.candidates
            ],
        }


@dataclass(frozen=True, slots=True)
class CollectiveReport:
    """A collective on a group of a cluster, at one or more sizes."""

    op: Collective
    cluster: Cluster
    shape: GroupShape
    sizes: tuple[Priced, ...]
    release: str

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        shape = self.shape
        return {
            "schema_version": 1,
            "kind": "collective",
            "op": self.op.value,
            "cluster": self.cluster.name,
            "gpu": self.cluster.gpu.name,
            "num_ranks": shape.num_members,
            "per_domain": shape.per_domain,
            "num_domains": shape.num_domains,
            "fabric_tier": shape.fabric_tier if shape.num_domains > 1 else 0,
            "measured_with": self.release or None,
            "sizes": [size.to_dict() for size in self.sizes],
        }


def collective(
    op: str,
    *,
    cluster: str | Path,
    ranks: int,
    overrides: Sequence[str] = (),
    size: str | int | None = None,
    sizes: str | None = None,
    per_domain: int | None = None,
    gpus: int | None = None,
    algorithm: str | None = None,
) -> CollectiveReport:
    """Time of a collective over a group of GPUs that lie side by side.

    Parameters
    ----------
    op
        ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all``, ``broadcast``, ``point_to_point``.
    cluster
        A cluster of the catalog by name, a cluster file, or a scenario, of which only its cluster counts.
    ranks
        Members of the group.
    overrides
        Fields of the cluster to set first, ``fabric.oversubscription=[1,3]`` and the like.
    size
        Full buffer, such as ``1 GiB``.
    sizes
        Instead of a size: ``1KiB..8GiB``, doubling.
    per_domain
        Members in each scale-up domain; default: as many as there are, or as a domain has.
    gpus
        GPUs of the cluster, instead of its own number.
    algorithm
        How it is to be carried out; default: as measured, else the fastest that the library has.

    Raises
    ------
    InvalidInputError
        If a name or a size is unknown, or the group does not divide.
    InfeasibleError
        If the group is larger than the cluster.
    """
    from exactmap.sim.scenario.cluster_source import read_cluster
    from exactmap.topology.collectives import collective_time, explain_collective
    from exactmap.topology.collectives.group import curves_of

    wanted = _named(Collective, op, "operation")
    way = None if algorithm is None else _named(Algorithm, algorithm, "algorithm")
    num_bytes = _sizes(size, sizes)
    machine = read_cluster(cluster, overrides, num_gpus=gpus)
    shape = _shape(machine, ranks, per_domain)
    priced = tuple(
        Priced(
            each,
            collective_time(machine, wanted, shape, each, way),
            explain_collective(machine, wanted, shape, each, way),
        )
        for each in num_bytes
    )
    curves = curves_of(machine)
    return CollectiveReport(wanted, machine, shape, priced, "" if curves is None else curves.release)


def _named(kind: type[_Name], text: str, what: str) -> _Name:
    names = [name.value for name in kind if name.value != Algorithm.NONE.value]
    plain = text.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in names:
        return kind(plain)
    near = get_close_matches(plain, names, 1, 0.5)
    raise InvalidInputError(
        f"unknown {what}",
        got=repr(text),
        expected=", ".join(names),
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


def _sizes(size: str | int | None, sizes: str | None) -> list[int]:
    if (size is None) == (sizes is None):
        raise InvalidInputError(
            "the size is given twice" if size is not None else "a size is missing",
            expected="one of --size, --sizes",
        )
    if sizes is None:
        return [size if isinstance(size, int) else _bytes(str(size))]
    first, dots, last = sizes.partition("..")
    if not dots:
        raise InvalidInputError(
            "not a range of sizes", got=repr(sizes), expected="two sizes, like 1KiB..8GiB"
        )
    low, high = _bytes(first), _bytes(last)
    if not 0 < low <= high:
        raise InvalidInputError("a range of sizes must ascend", got=repr(sizes), expected="like 1KiB..8GiB")
    out: list[int] = []
    while low <= high and len(out) < MAX_SIZES:
        out.append(low)
        low *= 2
    return out


def _bytes(text: str) -> int:
    # As in nccl-tests, a bare number is bytes.
    return parse_bytes(f"{text.strip()} B" if text.strip().isdigit() else text)


def _widest(ranks: int, most: int) -> int:
    """Most members in a domain with which all domains have as many."""
    return next(width for width in range(min(ranks, most), 0, -1) if ranks % width == 0)


def _shape(machine: Cluster, ranks: int, per_domain: int | None) -> GroupShape:
    """A group on neighbouring domains, and the tier of the fabric at which its furthest members meet."""
    import numpy as np

    from exactmap.topology.fabric.build import build_fabric
    from exactmap.topology.mapping import GroupShape

    if ranks < 1:
        raise InvalidInputError("a group needs ranks", got=str(ranks), expected="at least 1")
    usable = machine.used_per_domain
    width = min(ranks, usable) if per_domain is None else per_domain
    if not 1 <= width <= usable:
        raise InvalidInputError(
            "members per domain are out of range", got=str(width), expected=f"1 to {usable} in {machine.name}"
        )
    if ranks % width:
        raise InvalidInputError(
            "the group does not divide evenly over domains",
            got=f"{ranks} ranks, {width} in each domain",
            expected="a multiple",
            hint=f"--per-domain {_widest(ranks, usable)}, or another that divides {ranks}",
        )
    num_domains = ranks // width
    installed = machine.num_gpus // machine.scale_up.domain_size or 1
    if ranks > machine.usable_gpus or num_domains > installed:
        raise InfeasibleError(
            "the group is larger than the cluster",
            got=f"{ranks} ranks in {num_domains} domains",
            expected=f"at most {machine.usable_gpus} GPUs to use, {installed} domains, in {machine.name}",
            hint=f"--gpus {num_domains * machine.scale_up.domain_size} makes the cluster as large",
        )
    if num_domains == 1:
        return GroupShape(ranks, ranks, 1)
    ends = np.array([0]), np.array([(num_domains - 1) * machine.scale_up.domain_size])
    tier = int(build_fabric(machine).tier_between(*ends)[0])
    return GroupShape(ranks, width, num_domains, tier)
