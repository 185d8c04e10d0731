"""Small machines whose links are counted by hand, for tests of what shares them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.hardware import GPU, Cluster, ScaleOut, ScaleUp
from exactmap.topology.links import Floats, Ints, Routes

GIGA = 10**9  # bytes/s, so that a byte takes a nanosecond


def small_cluster(num_gpus: int, domain_size: int = 1) -> Cluster:
    """Interfaces of 1 byte/ns, all of which is payload."""
    return Cluster(
        name="small",
        num_gpus=num_gpus,
        gpus_per_host=1,
        used_per_domain=domain_size,
        gpu=GPU("gpu", "", {"fp32": 10**12, "bf16": 10**12}, 10**9, 10**12, 1.0, 0, 0, 100),
        scale_up=ScaleUp("up", domain_size, 10 * GIGA, 1.0, 0),
        scale_out=ScaleOut("out", GIGA, 1.0, 0),
        fabric=FabricSpec(),
    )


@dataclass(frozen=True)
class LeafSpine:
    """Leaves of so many GPUs, each with a link up to each spine; also its own table of links.

    Links: 0.. interface out by GPU, then in; then leaf up by (leaf, spine), then down.
    """

    num_gpus: int
    per_leaf: int
    num_spines: int = 1
    interface: float = GIGA
    uplink: float = GIGA
    spec: FabricSpec = field(default_factory=FabricSpec)

    @property
    def links(self) -> LeafSpine:
        return self

    @property
    def num_leaves(self) -> int:
        return -(-self.num_gpus // self.per_leaf)

    @property
    def num_links(self) -> int:
        return 2 * (self.num_gpus + self.num_leaves * self.num_spines)

    @property
    def bisection_bytes_per_s(self) -> float:
        return self.num_leaves * self.num_spines * self.uplink / 2

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        return np.where(links < 2 * self.num_gpus, self.interface, self.uplink).astype(np.float64)

    def tier(self, links: Ints) -> Ints:
        return (links >= 2 * self.num_gpus).astype(np.int64)

    def name(self, link: int) -> str:
        if link < 2 * self.num_gpus:
            return f"gpu {link % self.num_gpus} {'out' if link < self.num_gpus else 'in'}"
        way, place = divmod(link - 2 * self.num_gpus, self.num_leaves * self.num_spines)
        leaf, spine = divmod(place, self.num_spines)
        return f"leaf {leaf} {'<' if way else '>'} spine {spine}"

    def leaf(self, gpu: Ints) -> Ints:
        return gpu // self.per_leaf

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        return np.where(first == second, 0, np.where(self.leaf(first) == self.leaf(second), 1, 2))

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        return np.zeros(len(first), dtype=np.int64) + 0 * second

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        draws = np.random.default_rng(seed).integers(0, self.num_spines, len(first)).tolist()
        start, link, share = [0], [], []
        for source, sink, drawn in zip(first.tolist(), second.tolist(), draws, strict=True):
            link += [source, self.num_gpus + sink]
            share += [1.0, 1.0]
            up, down = source // self.per_leaf, sink // self.per_leaf
            if up != down:
                spines = [drawn] if spread is Spread.ECMP else range(self.num_spines)
                base = 2 * self.num_gpus
                for spine in spines:
                    link.append(base + up * self.num_spines + spine)
                    link.append(base + (self.num_leaves + down) * self.num_spines + spine)
                    share += [1.0 / len(spines)] * 2
            start.append(len(link))
        return Routes(np.array(start), np.array(link, dtype=np.int64), np.array(share))
