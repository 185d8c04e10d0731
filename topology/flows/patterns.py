"""Traffic that clusters have: who sends to whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.links import Ints

__all__ = ["Pattern", "Traffic", "all_to_all", "incast", "permutation", "rail_rings", "ring"]


class Pattern(StrEnum):
    """Kinds of traffic."""

    PERMUTATION = "permutation"
    """Each sends to one other, chosen at random, and hears from one other."""
    INCAST = "incast"
    """All send to one."""
    ALL_TO_ALL = "all_to_all"
    """Each sends to each other."""
    RING = "ring"
    """Rings over hosts, one for each place in a host: data-parallel rings along rails."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Flows between GPUs.

    Parameters
    ----------
    first, second
        [flows] sender and receiver.
    """

    first: Ints
    second: Ints

    @property
    def num_flows(self) -> int:
        """Number of flows."""
        return len(self.first)

    def where(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Traffic:
        """Some of the flows."""
        return Traffic(self.first[chosen], self.second[chosen])


def permutation(gpus: Ints, *, seed: int = 0) -> Traffic:
    """Each GPU sends to the next of a random cycle through all.

    Examples
    --------
    >>> traffic = permutation(np.arange(6), seed=1)
    >>> sorted(traffic.first.tolist()) == sorted(traffic.second.tolist()) == list(range(6))
    True
    """
    order = np.random.default_rng(seed).permutation(gpus)
    return Traffic(order, np.roll(order, -1)) if len(gpus) > 1 else _none()


def incast(gpus: Ints) -> Traffic:
    """All others send to the first."""
    return Traffic(gpus[1:], np.full(max(len(gpus) - 1, 0), gpus[0] if len(gpus) else 0))


def all_to_all(gpus: Ints) -> Traffic:
    """Each sends to each other.

    Examples
    --------
    >>> all_to_all(np.arange(200)).num_flows
    39800
    """
    num = len(gpus)
    first, second = np.divmod(np.arange(num * num), max(num, 1))
    other = first != second
    return Traffic(gpus[first[other]], gpus[second[other]])


def ring(gpus: Ints) -> Traffic:
    """Each sends to the next, the last to the first."""
    return Traffic(gpus, np.roll(gpus, -1)) if len(gpus) > 1 else _none()


def rail_rings(num_hosts: int, gpus_per_host: int, *, shift: int = 0, stride: int = 1) -> Traffic:
    """One ring over the hosts for each place in a host, as data-parallel groups have.

    Parameters
    ----------
    num_hosts, gpus_per_host
        Hosts in the ring and GPUs of each.
    shift
        Places by which a hop changes inside the host: 0 stays on its rail; any other leaves it at each hop,
        and a packet has to climb above the leaves.
    stride
        Hosts from one hop to the next: over 1 where other axes lie between.

    Examples
    --------
    >>> good, bad = rail_rings(3, 2), rail_rings(3, 2, shift=1)
    >>> list(zip(good.first.tolist(), good.second.tolist()))
    [(0, 2), (1, 3), (2, 4), (3, 5), (4, 0), (5, 1)]
    >>> list(zip(bad.first.tolist(), bad.second.tolist()))
    [(0, 3), (1, 2), (2, 5), (3, 4), (4, 1), (5, 0)]
    """
    if num_hosts < 1 or gpus_per_host < 1 or stride < 1:
        raise InvalidInputError(
            "rings need hosts",
            got=f"{num_hosts} hosts of {gpus_per_host} GPUs, stride {stride}",
            expected="at least 1 of each",
        )
    if num_hosts == 1:
        return _none()
    host, place = np.divmod(np.arange(num_hosts * gpus_per_host), gpus_per_host)
    next_host, next_place = (host + 1) % num_hosts, (place + shift) % gpus_per_host
    step = gpus_per_host * stride
    return Traffic(host * step + place, next_host * step + next_place)


def _none() -> Traffic:
    nobody = np.zeros(0, dtype=np.int64)
    return Traffic(nobody, nobody)
