"""The range of machines, sequences and models that published rows check, by GPU type and kind of model."""

from __future__ import annotations

from collections.abc import Iterable

from exactmap.errors import ExactmapError
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of

__all__ = ["checked_range_csv"]

_HEAD = "gpu,kind,gpus_low,gpus_high,seq_low,seq_high,hidden_low,hidden_high"


def checked_range_csv(rows: Iterable[Row]) -> str:
    """Text of ``data/checked-range.csv`` for the rows that have a step time."""
    seen: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for row in rows:
        if not row["step_time_s"]:
            continue
        try:
            setup = setup_of(row)
        except ExactmapError:
            continue
        gpu = setup.cluster.gpu
        key = (gpu.kernels or gpu.curves, "experts" if setup.model.experts else "dense")
        seen.setdefault(key, []).append((setup.split.num_ranks, setup.batch.seq, setup.model.hidden))
    lines = [
        ",".join([*key, *(f"{min(column)},{max(column)}" for column in zip(*values, strict=True))])
        for key, values in sorted(seen.items())
    ]
    source = (
        "# Range of the published rows that predictions are checked on; written by `exactmap validate --fit`."
    )
    return "\n".join([source, _HEAD, *lines, ""])
