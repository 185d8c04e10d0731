"""What the words of a recipe of mixtures of experts mean: dispatchers, further predictions, recompute."""

from __future__ import annotations

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.step.predict import predict_step

_QWEN = {
    "model": "qwen3-235b-a22b",
    "arch": "moe",
    "layers": "94",
    "hidden": "4096",
    "heads": "64",
    "kv_heads": "4",
    "head_dim": "128",
    "ffn": "12288",
    "vocab": "151936",
    "n_experts": "128",
    "top_k": "8",
    "moe_ffn": "1536",
    "seq_len": "4096",
    "gpu": "GB200",
    "n_gpus": "64",
    "nvlink_domain": "72",
    "framework": "Megatron-Bridge",
    "release": "26.02",
    "precision": "MXFP8",
    "tp": "1",
    "pp": "1",
    "cp": "1",
    "ep": "64",
    "mbs": "1",
    "gbs": "1024",
    "recompute": "none",
}


def _setup(**changes: str) -> TrainingSetup:
    return setup_of(Row(_QWEN | changes))


def test_buffers_of_a_fixed_size_go_by_all_to_all() -> None:
    """The dispatchers that skip copies refuse padded experts: rows that drop tokens cannot have used them."""
    assert _setup().software.dispatcher == "hybridep"
    dropping = _setup(flags="token_drop").software
    assert (dropping.dispatcher, dropping.capacity_factor) == ("all_to_all", 1.0)


def test_dropping_tokens_sends_every_copy_over_the_interfaces() -> None:
    hosts = {"gpu": "H100", "nvlink_domain": "8", "ep": "32", "precision": "FP8"}
    kept, dropped = predict_step(_setup(**hosts)), predict_step(_setup(**hosts, flags="token_drop"))
    assert dropped.parts_ns["ep scale_out"] > 1.5 * kept.parts_ns["ep scale_out"]
