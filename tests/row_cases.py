"""Rows that tests start from: one that states everything, and what people write into cells."""

from __future__ import annotations

from exactmap.sim.published.batch import OUTPUT_COLUMNS
from exactmap.sim.published.row import Row

__all__ = ["COMPLETE", "ODD_CELLS", "PART_COLUMNS", "row", "seconds"]

COMPLETE = {
    "id": "mine-1",
    "set": "mine",
    "model": "Llama-3-70B",
    "arch": "dense",
    "layers": "80",
    "hidden": "8192",
    "heads": "64",
    "kv_heads": "8",
    "head_dim": "128",
    "ffn": "28672",
    "vocab": "128256",
    "seq_len": "8192",
    "gpu": "H100",
    "n_gpus": "64",
    "nvlink_domain": "8",
    "nic_gbps_per_gpu": "400",
    "framework": "Megatron-Bridge",
    "release": "26.02",
    "precision": "BF16",
    "tp": "4",
    "pp": "4",
    "cp": "1",
    "ep": "1",
    "dp": "4",
    "vpp": "5",
    "mbs": "1",
    "gbs": "128",
    "n_microbatches": "32",
    "schedule": "interleaved-1F1B",
    "recompute": "none",
    "seq_par": "1",
    "dist_opt": "1",
    "flags": "overlap_grad_reduce",
}
"""Llama 3 70B on 64 H100: nothing is assumed."""

PART_COLUMNS = tuple(
    name for name in OUTPUT_COLUMNS if name.endswith("_s") and name not in ("predicted_s", "low_s", "high_s")
)
"""Columns that add up to the prediction."""

ODD_CELLS = (
    *("", " ", "0", "-1", "1.5", "8.0", "1e9", "999999999", "1e400", "nan", "inf", "-inf", "0x10", "1_000"),
    *("\u0663", "\u00b2", "\u4e03", "\ufeff7", "a" * 300, "9" * 5000, "MLA", "None", "true", "yes", "1.0"),
    *(
        "h100",
        "GB200",
        "TPUv4",
        "full-layer 9999",
        "full",
        "selective",
        "modules:mlp+moe",
        "save_dots",
        "sac",
    ),
    *(
        "dualpipe",
        "DualPipeV",
        "zb-v",
        "ZB-H2",
        "gpipe",
        "interleaved",
        "zero-3",
        "10 sharding groups",
        "fp8",
    ),
    *("NVFP4", "FP8-MX (amp)", "bf16 (pure)", "pp_layout=E(t)*100000000", "pp_layout=Et*9|tL", "mtp=999999"),
    *("etp=0", "etp=3", "first_dense=9999", "500% offload", "cuda_graph=", "lora", "ulysses", "deepep"),
    "cpu_activation_offload_layers=" + "9" * 5000,
)
"""What cells may hold by mistake, by malice, or in another table's words."""


def row(**changes: str) -> Row:
    """The complete row with other cells."""
    return Row(COMPLETE | changes)


def seconds(line: dict[str, str], column: str) -> float:
    """A column of a result in seconds; an empty cell is none."""
    return float(line[column] or 0.0)
