"""Constants of the collective model by GPU type, and of the network: ``catalog/collective-constants.csv``.

The constants of `RING` and `PAIR` are fitted on the type's measured curves
(`exactmap.topology.collectives.fit`); ``python tests/bench/collectives_fit.py --write`` writes them. A type
without curves names another that it borrows from: times stay, rates scale with the link. Those of in-switch
reduction come from published tables, those of the network are ratios of the latencies that NCCL's own tuner
has.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files
from math import inf
from typing import Any

from exactmap.topology.hardware import Cluster

__all__ = [
    "PAIR",
    "RING",
    "Confidence",
    "LinkConstants",
    "NetworkConstants",
    "find_constants",
    "link_constants",
    "network_constants",
]

CONSTANTS_FILE = "collective-constants.csv"

RING = (
    "base_ns",
    "ll_step_ns",
    "ll_bytes_per_s",
    "ll128_step_ns",
    "ll128_bytes_per_s",
    "simple_step_ns",
    "simple_bytes_per_s",
    "copy_bytes_per_s",
    "sharpness",
)
PAIR = (
    "pair_base_ns",
    "pair_doubling_ns",
    "pair_ll_bytes_per_s",
    "pair_simple_ns",
    "pair_bytes_per_s",
    "pair_copy_bytes_per_s",
    "pair_sharpness",
)


class Confidence(StrEnum):
    """How well a time is known."""

    MEASURED = "measured"
    """Inside measured sizes and ranks."""
    FITTED = "fitted"
    """A model whose constants were fitted on this type's measurements."""
    BORROWED = "borrowed"
    """A model with another type's constants, rates scaled with the link."""
    ASSUMED = "assumed"
    """Latency and rate of the cluster file, no measurement."""


@dataclass(frozen=True, slots=True)
class LinkConstants:
    """What collectives inside a domain take; equations in `exactmap.topology.collectives.model`.

    Parameters
    ----------
    name
        GPU type.
    link_bytes_per_s
        Rate of a GPU's link to its domain, one direction: nothing is faster.
    base_ns
        Launch and first contact.
    ll_step_ns, ll_bytes_per_s, ll128_step_ns, ll128_bytes_per_s, simple_step_ns, simple_bytes_per_s
        One step of a ring by protocol, and the rate of its bytes.
    copy_bytes_per_s
        Rate of a member's own share from its input to its output.
    sharpness
        How abruptly a step of the Simple protocol turns from latency to rate.
    switch_bytes
        Bytes of a step beyond which the library changes to Simple, on long rings.
    pair_base_ns, pair_doubling_ns, pair_ll_bytes_per_s, pair_simple_ns, pair_bytes_per_s,
    pair_copy_bytes_per_s, pair_sharpness
        The same for messages between pairs; `pair_doubling_ns` for each doubling of the ranks.
    nvls_base_ns, nvls_bytes_per_s, nvls_channels, nvls_stages
        In-switch reduction: latency, size over time of large buffers, channels, loops until its pipeline is
        full. A rate of 0: none.
    tree_max_domain
        Largest domain whose members are chained in a tree with more than the LL protocol.
    siblings
        Types on the same link, whose curves serve for ranks beyond this type's own.
    confidence
        `FITTED`, `BORROWED` or `ASSUMED`.
    """

    name: str
    link_bytes_per_s: float
    base_ns: float
    ll_step_ns: float
    ll_bytes_per_s: float
    ll128_step_ns: float
    ll128_bytes_per_s: float
    simple_step_ns: float
    simple_bytes_per_s: float
    copy_bytes_per_s: float
    sharpness: float
    switch_bytes: float
    pair_base_ns: float
    pair_doubling_ns: float
    pair_ll_bytes_per_s: float
    pair_simple_ns: float
    pair_bytes_per_s: float
    pair_copy_bytes_per_s: float
    pair_sharpness: float
    nvls_base_ns: float = 0.0
    nvls_bytes_per_s: float = 0.0
    nvls_channels: float = 0.0
    nvls_stages: float = 0.0
    tree_max_domain: float = 8.0
    siblings: tuple[str, ...] = ()
    confidence: Confidence = Confidence.FITTED

    @property
    def stream_bytes_per_s(self) -> float:
        """Rate of large steps in the Simple protocol: its law knows nothing of the link."""
        return min(self.simple_bytes_per_s, self.link_bytes_per_s)

    def with_numbers(self, numbers: Mapping[str, float]) -> LinkConstants:
        """The same with some numbers changed, by name."""
        changes: dict[str, Any] = dict(numbers)
        return replace(self, **changes)

    def scaled(self, name: str, share: float) -> LinkConstants:
        """The same with another link rate: times stay, rates scale."""
        rates = {
            field.name: getattr(self, field.name) * share
            for field in fields(self)
            if field.name.endswith("_bytes_per_s")
        }
        borrowed = replace(self, name=name, siblings=(), confidence=Confidence.BORROWED)
        return borrowed.with_numbers(rates)


@dataclass(frozen=True, slots=True)
class NetworkConstants:
    """Latencies between domains as shares of a small message's (`ScaleOut.latency_ns`), and rate caps.

    Parameters
    ----------
    ring_ll, ring_ll128, ring_simple, tree_ll, tree_ll128, tree_simple, nvls_tree, sharp
        Latency of one hop by algorithm and protocol.
    tree_ll_share
        Rate of a tree in the LL protocol over the ring's full rate.
    tree_chunk_bytes
        Bytes in flight on each hop of a tree in the Simple protocol.
    message_ns
        Time of an interface for each message of an all-to-all.
    overlap
        How well the stages of in-switch reduction overlap: exponent of the norm of their times.
    """

    ring_ll: float
    ring_ll128: float
    ring_simple: float
    tree_ll: float
    tree_ll128: float
    tree_simple: float
    nvls_tree: float
    sharp: float
    tree_ll_share: float
    tree_chunk_bytes: float
    message_ns: float
    overlap: float


@cache
def _rows() -> Mapping[str, Mapping[str, str]]:
    """GPU type -> constant -> value as written."""
    text = files("exactmap.topology").joinpath("catalog", CONSTANTS_FILE).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    rows: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(lines):
        rows.setdefault(row["gpu"], {})[row["name"]] = row["value"]
    return rows


@cache
def find_constants(name: str) -> LinkConstants | None:
    """Constants of a GPU type, or None."""
    row = _rows().get(name)
    if row is None or name == "network":
        return None
    lender = row.get("borrowed_from")
    if lender is not None:
        base = find_constants(lender)
        assert base is not None, f"{name} borrows from {lender}, which has no constants"
        share = float(row["link_bytes_per_s"]) / float(_rows()[lender]["link_bytes_per_s"])
        return base.scaled(name, share)
    numbers = {
        field.name: float(row[field.name])
        for field in fields(LinkConstants)
        if field.name in row and field.name != "siblings"
    }
    return LinkConstants(name, siblings=tuple(row.get("siblings", "").split()), **numbers)  # type: ignore[arg-type]


@cache
def network_constants() -> NetworkConstants:
    """Constants of the network."""
    row = _rows()["network"]
    return NetworkConstants(**{field.name: float(row[field.name]) for field in fields(NetworkConstants)})


def link_constants(cluster: Cluster) -> LinkConstants:
    """Constants of a cluster's GPUs; for an unknown type its latency and its rate at every size."""
    known = find_constants(cluster.gpu.curves)
    if known is not None:
        return known
    up = cluster.scale_up
    step, rate = float(up.latency_ns), up.bytes_per_s * up.efficiency
    return LinkConstants(
        name=cluster.gpu.name,
        link_bytes_per_s=float(up.bytes_per_s),
        base_ns=0.0,
        ll_step_ns=step,
        ll_bytes_per_s=rate,
        ll128_step_ns=step,
        ll128_bytes_per_s=rate,
        simple_step_ns=step,
        simple_bytes_per_s=rate,
        copy_bytes_per_s=inf,
        sharpness=1.0,
        switch_bytes=inf,
        pair_base_ns=step,
        pair_doubling_ns=0.0,
        pair_ll_bytes_per_s=rate,
        pair_simple_ns=step,
        pair_bytes_per_s=rate,
        pair_copy_bytes_per_s=inf,
        pair_sharpness=1.0,
        confidence=Confidence.ASSUMED,
    )
