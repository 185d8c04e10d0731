"""The 8-GPU B200 runs of SimuMax (github.com/MooreThreads/SimuMax, Apache-2.0) as rows in the common layout.

All are Megatron-LM in BF16 on one host: distributed optimizer, gradients accumulated and reduced in 32 bits,
no recompute, no overlap of communication, cut models, capacity factor 1 with padding, DeepSeek slices with
one dense layer and without multi-token prediction, context parallelism by all-to-all.
"""

from __future__ import annotations

from collections.abc import Iterator

from exactmap.sim.published.row import Row, published_rows

__all__ = ["b200_rows"]

_COMMON = {
    "set": "b200_8gpu",
    "arch": "dense",
    "gpus_per_node": "8",
    "nvlink_domain": "8",
    "nic_gbps_per_gpu": "400",
    "framework": "Megatron-LM",
    "release": "2025",
    "dist_opt": "1",
    "step_time_kind": "measured",
}


def b200_rows() -> Iterator[Row]:
    """Yield the runs, measured time and memory included."""
    for row in published_rows("b200-8gpu.csv"):
        values = dict(row.values) | _COMMON
        values["seq_par"] = values.pop("sp")
        values["n_microbatches"] = values.pop("mbc")
        values["step_time_s"] = str(float(values.pop("measured_ms")) / 1e3)
        values["mem_gib"] = values.pop("measured_gib")
        values["notes"] = values.pop("source_note")
        values["schedule"] = "1F1B" if values["pp"] != "1" else "none"
        flags = ["no_overlap", "cp_comm_type=a2a"]
        if values["n_experts"]:
            values["arch"] = "moe"
            flags += ["moe_capacity_factor=1.0", "pad_to_capacity", "first_dense=1", "mtp=0"]
        values["flags"] = " ".join(flags)
        yield Row(values, row.line)
