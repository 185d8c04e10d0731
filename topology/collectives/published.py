"""Published times of collectives (``catalog/published-collectives.csv``): what the model is held against."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from exactmap.topology.collectives.operations import Algorithm, Collective, bus_factor

__all__ = ["Published", "published"]

_FILE = "published-collectives.csv"


@dataclass(frozen=True, slots=True)
class Published:
    """One published result.

    Parameters
    ----------
    gpu, op, num_ranks, num_domains, num_bytes
        Of what.
    nic_gbps
        Interface of each GPU, Gb/s.
    time_ns
        As published, or from the bus bandwidth.
    algorithm
        What ran; None if the source does not say and its rate does not show it.
    use
        ``check``, or ``fit`` if constants were fitted on it.
    source
        Where it was read.
    """

    gpu: str
    op: Collective
    num_ranks: int
    num_domains: int
    nic_gbps: int
    num_bytes: int
    time_ns: float
    algorithm: Algorithm | None
    use: str
    source: str


@cache
def published() -> tuple[Published, ...]:
    """All of them, as in the file."""
    text = files("exactmap.topology").joinpath("catalog", _FILE).read_text(encoding="utf-8")
    out = []
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        op, ranks, size = Collective(row["op"]), int(row["ranks"]), int(row["bytes"])
        time_ns = (
            float(row["us"]) * 1e3 if row["us"] else size * bus_factor(op, ranks) / float(row["bus_gb_s"])
        )
        out.append(
            Published(
                row["gpu"],
                op,
                ranks,
                int(row["domains"]),
                int(row["nic_gbps"]),
                size,
                time_ns,
                Algorithm(row["algorithm"]) if row["algorithm"] else None,
                row["use"],
                row["source"],
            )
        )
    return tuple(out)
