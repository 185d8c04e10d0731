"""What traffic does to a cluster's fabric: fair rates, hot links, collisions, what lost links cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.sim.scenario.units import parse_bytes
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.flows.health import Health, find_links, rates_out_of_leaf
from exactmap.topology.flows.patterns import Pattern, Traffic, all_to_all, incast, permutation, rail_rings
from exactmap.topology.flows.report import Spreads, TrafficReport
from exactmap.topology.flows.traffic import traffic_report
from exactmap.topology.hardware import Cluster
from exactmap.topology.links import Ints

__all__ = ["TrafficOutcome", "traffic"]

Kind = TypeVar("Kind", Pattern, Spread)

MAX_FLOWS = 4_000_000


@dataclass(frozen=True, slots=True)
class TrafficOutcome:
    """Traffic on a cluster.

    Parameters
    ----------
    cluster, num_gpus, num_tiers
        Where; 0 tiers where the fabric has no such number.
    pattern, num_senders
        Who sends to whom, and how many take part.
    num_inside
        Flows that stay inside a scale-up domain and do not use the fabric.
    interface_bytes_per_s
        Rate of a GPU's interface.
    lost
        Links that are lost or slow, by name.
    out_of_leaf_bytes_per_s
        Rate at which each GPU can send above its leaves when all do; None where all links are whole.
    report
        Rates, utilisation, hot links, collisions, times.
    """

    cluster: str
    num_gpus: int
    num_tiers: int
    pattern: str
    num_senders: int
    num_inside: int
    interface_bytes_per_s: float
    lost: tuple[str, ...]
    out_of_leaf_bytes_per_s: Spreads | None
    report: TrafficReport

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        return {"schema_version": 1, "kind": "traffic", **asdict(self)}


def traffic(
    cluster: str | Path,
    overrides: Sequence[str] = (),
    *,
    pattern: str = "permutation",
    gpus: int | None = None,
    senders: int | None = None,
    spread: str = "ecmp",
    seed: int = 0,
    paths: int = 1,
    shift: int = 0,
    size: str | int | None = None,
    lost: Sequence[str] = (),
    slow: Sequence[str] = (),
    top: int = 10,
) -> TrafficOutcome:
    """Let GPUs of a cluster send to each other, all at once, and share the fabric's links fairly.

    Parameters
    ----------
    cluster
        Name in the catalog, a cluster file, or a scenario, of which only its cluster counts.
    overrides
        Fields of the cluster to set first, ``fabric.planes=4`` and the like.
    pattern
        ``permutation``, ``incast``, ``all_to_all`` or ``ring`` (over scale-up domains, one per place).
    gpus
        GPUs of the cluster; those that its file says if left out.
    senders
        GPUs that take part, the first ones; all if left out. For a ring: those of whole domains.
    spread
        ``ecmp`` or ``spray``.
    seed
        Of the permutation and of ECMP's choices.
    paths
        Paths by ECMP that each flow is striped over, as several queue pairs do.
    shift
        Ring: places inside the domain by which each hop changes; 0 stays on its rail.
    size
        Bytes of each flow (``1 GiB``), to play them until all have arrived.
    lost
        Names of links whose cable is lost, such as ``leaf 3 > spine 1``.
    slow
        Names of links with what is left of their rate, such as ``leaf 3 > spine 1=0.5``.
    top
        Hot links to name at most.

    Raises
    ------
    InvalidInputError
        If there is no such pattern, link or number of GPUs.
    InfeasibleError
        If the fabric cannot be built, or lost links cut a GPU off.
    """
    kind, way = _choice(Pattern, pattern, "pattern"), _choice(Spread, spread, "spread")
    found = read_cluster(cluster, overrides, num_gpus=gpus)
    fabric = build_fabric(found)
    num = found.num_gpus if senders is None else senders
    if not 1 <= num <= found.num_gpus:
        raise InvalidInputError(
            "so many GPUs cannot take part",
            where=Place(field="senders"),
            got=str(num),
            expected=f"1 to {found.num_gpus}",
        )
    flows = _flows(kind, num, found, seed=seed, shift=shift)
    domain = found.scale_up.domain_size
    is_outside = flows.first // domain != flows.second // domain
    health = _health(fabric.links, lost, slow)
    num_bytes = 0 if size is None else parse_bytes(size)
    report = traffic_report(
        fabric,
        flows.where(is_outside),
        spread=way,
        seed=seed,
        paths=paths,
        health=health,
        num_bytes=num_bytes,
        top=top,
    )
    out = None
    if len(health.links):
        out = Spreads.of(rates_out_of_leaf(fabric.links, health))
    return TrafficOutcome(
        found.name,
        found.num_gpus,
        fabric.spec.num_tiers,
        kind.value,
        num,
        int((~is_outside).sum()),
        float(found.scale_out.bytes_per_s),
        (*lost, *slow),
        out,
        report,
    )


def _flows(kind: Pattern, num: int, cluster: Cluster, *, seed: int, shift: int) -> Traffic:
    if kind is Pattern.ALL_TO_ALL and num * (num - 1) > MAX_FLOWS:
        raise InvalidInputError(
            "too many flows to look at one by one",
            where=Place(field="senders"),
            got=f"{num * (num - 1):,} between {num} GPUs",
            expected=f"at most {MAX_FLOWS:,}",
            hint="let 2000 GPUs or fewer take part",
        )
    gpus = np.arange(num)
    if kind is Pattern.PERMUTATION:
        return permutation(gpus, seed=seed)
    if kind is Pattern.INCAST:
        return incast(gpus)
    if kind is Pattern.ALL_TO_ALL:
        return all_to_all(gpus)
    size = cluster.scale_up.domain_size
    if num < 2 * size:
        raise InvalidInputError(
            "a ring over scale-up domains needs two of them",
            where=Place(field="senders"),
            got=f"{num} GPUs in domains of {size}",
            expected=f"at least {2 * size}",
            hint=f"make the cluster larger: --gpus {4 * size}",
        )
    return rail_rings(num // size, size, shift=shift)


def _choice(kinds: type[Kind], text: str, field: str) -> Kind:
    try:
        return kinds(text)
    except ValueError:
        raise InvalidInputError(
            f"no such {field}", where=Place(field=field), got=repr(text), expected=" or ".join(kinds)
        ) from None


def _health(table: Wiring, lost: Sequence[str], slow: Sequence[str]) -> Health:
    if not lost and not slow:
        return Health.whole()
    names, factors = list(lost), [0.0] * len(lost)
    for text in slow:
        name, _, factor = text.rpartition("=")
        try:
            factors.append(float(factor))
        except ValueError:
            factors.append(-1.0)
        if not name or not 0.0 <= factors[-1] <= 1.0:
            raise InvalidInputError(
                "a slow link needs the part of its rate that is left",
                where=Place(field="slow"),
                got=repr(text),
                expected="a name, =, and 0 to 1, such as 'leaf 3 > spine 1=0.5'",
            )
        names.append(name.strip())
    links: list[Ints] = find_links(table, names)
    parts = [np.full(len(each), factor) for each, factor in zip(links, factors, strict=True)]
    return Health(np.concatenate(links), np.concatenate(parts))
