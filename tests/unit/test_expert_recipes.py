"""What the words of a recipe of mixtures of experts mean: dispatchers, further predictions, recompute."""

from __future__ import annotations

from dataclasses import replace

from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.step.predict import predict_step
from exactmap.sim.step.stages import price_stages
from exactmap.sim.workload.layer_work import LayerWork, layer_work, prediction_work
from exactmap.sim.workload.model import LayerKind

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


def test_fixed_shapes_are_captured_whole_on_blackwell() -> None:
    """Dropping tokens exists for graphs; Hopper's recipes of that release capture nothing."""
    assert _setup(flags="token_drop").software.cuda_graphs == {"full"}
    assert not _setup(flags="token_drop", gpu="H100", nvlink_domain="8", ep="8").software.cuda_graphs
    assert not _setup().software.cuda_graphs


def test_many_small_experts_wait_for_the_host() -> None:
    """Sixteen experts of one sequence are launched slower than they run, unless captured."""
    small = {
        "gpu": "B200",
        "nvlink_domain": "8",
        "n_gpus": "8",
        "ep": "8",
        "hidden": "2048",
        "moe_ffn": "768",
    }
    small |= {"heads": "32", "layers": "48", "gbs": "512"}
    eager = predict_step(_setup(**small))
    captured = predict_step(_setup(**small, flags="cuda_graph=full_iteration"))
    assert eager.parts_ns["host"] > 0.2 * eager.step_ns
    assert captured.parts_ns.get("host", 0.0) < 0.01 * captured.step_ns


def test_overlapped_exchanges_take_multiprocessors_from_what_runs_beside() -> None:
    woven = {"flags": "ep_a2a_overlap_1f1b cuda_graph=full_iteration dispatcher=hybridep"}
    parts = predict_step(_setup(**woven)).parts_ns
    apart = predict_step(_setup(flags="cuda_graph=full_iteration dispatcher=hybridep")).parts_ns
    hidden = apart["ep scale_up"] - parts.get("ep scale_up", 0.0)
    slowed = parts["overlap slowdown"] - apart.get("overlap slowdown", 0.0)
    assert 0.27 < slowed / hidden < 0.28  # 32 of 148 are gone: 32 / 116 longer


def _layer(setup: TrainingSetup, kind: LayerKind) -> LayerWork:
    args = (setup.split, setup.batch, setup.precision, setup.software)
    return layer_work(setup.model, kind, *args)


def test_biases_of_experts_stay_beside_a_fused_kernel() -> None:
    """One kernel for an expert's products has no place for a clamped gate nor for biases."""
    for model, has in (("qwen3-235b-a22b", False), ("gpt-oss-120b", True)):
        setup = _setup(model=model, flags="fused_grouped_mlp")
        names = {kernel.name for kernel in _layer(setup, setup.model.layer_kinds()[-1]).kernels}
        assert ({"expert_bias", "expert_activation"} <= names) == has


def test_further_predictions_of_nemotron_run_twice_in_16_bits() -> None:
    """Two depths of an attention and an expert layer, the same weights again, and a head for each."""
    setup = _setup(model="nemotron3-super-120b-a12b", arch="hybrid-moe", layers="88", precision="NVFP4")
    model = setup.model
    assert (model.mtp_layers, model.mtp_repeated, len(model.mtp_kinds())) == (2, True, 2)
    works = prediction_work(model, setup.split, setup.batch, setup.precision, setup.software)
    kernels = [kernel for work in works for kernel in work.kernels]
    assert all(kernel.wide for kernel in kernels)
    assert {"prediction", "attention", "expert_up"} <= {kernel.name for kernel in kernels}
    clock = LayerClock(setup)
    stage = price_stages(clock).stages[-1]
    assert stage.head[1] == 3
    once = price_stages(LayerClock(replace(setup, model=replace(model, mtp_layers=1)))).stages[-1]
    assert stage.dense == once.dense
    assert stage.forward_ns > once.forward_ns


def test_latent_attention_stores_its_scores_on_early_blackwell() -> None:
    """No fused backward for its heads then: scores and a softmax over the whole square."""
    latent = {"model": "deepseek-v3-671b", "head_dim": "MLA", "framework": "NeMo", "release": "25.05"}
    for gpu, stored in (("GB200", True), ("H100", False)):
        setup = _setup(**latent, gpu=gpu, nvlink_domain="8", ep="8")
        names = {kernel.name for kernel in _layer(setup, setup.model.layer_kinds()[-1]).kernels}
        assert ({"scores", "softmax"} <= names) == stored


def test_recompute_of_all_experts_includes_router_gate_and_shared_ones() -> None:
    """Megatron's `moe` module is the whole layer of experts."""
    shared = {"model": "deepseek-v3-671b", "head_dim": "MLA", "shared_experts": "1"}
    times = {}
    for modules in ("moe", "moe+moe_act+shared_experts"):
        setup = _setup(**shared, recompute=f"modules:{modules}")
        times[modules] = predict_step(setup).parts_ns["recompute"]
    assert times["moe"] == times["moe+moe_act+shared_experts"]


def test_routing_is_even_where_a_benchmark_forces_it() -> None:
    """The framework's default is the router's own choice; benchmarks say that they force it."""
    assert _setup(flags="moe_forced_balanced").software.balanced
    assert not _setup().software.balanced


def test_parts_of_graphs_are_read_apart_from_the_word_for_graphs() -> None:
    assert _setup(flags="cuda_graph attn+mamba").software.cuda_graphs == {"attn", "mamba"}


def test_packed_samples_leave_attention_little_to_do() -> None:
    """LoRA's recipes pack short samples: attention sees triangles, products the same tokens."""
    dense = {"n_experts": "", "top_k": "", "moe_ffn": "", "ep": "1", "arch": "dense", "model": "llama3-8b"}
    whole = _setup(**dense)
    packed = replace(whole, software=replace(whole.software, packed_tokens=256))
    flop = []
    for setup in (whole, packed):
        kernels = _layer(setup, setup.model.layer_kinds()[-1]).kernels
        flop.append({kernel.name: kernel.flop for kernel in kernels})
    assert flop[0]["attention"] == 4096 / 256 * flop[1]["attention"]
    assert flop[0]["up"] == flop[1]["up"]
    assert _setup(**dense, flags="task=LoRA").software.packed_tokens == 256


def test_sorting_was_several_kernels_in_early_releases() -> None:
    times = {}
    for release in ("25.02", "25.04"):
        setup = _setup(framework="NeMo", release=release)
        kernels = _layer(setup, setup.model.layer_kinds()[-1]).kernels
        times[release] = sum(kernel.num_bytes for kernel in kernels if kernel.name == "permute")
    assert times["25.02"] > 2 * times["25.04"]


def test_latent_attention_turns_queries_in_place_where_its_kernel_is_fused() -> None:
    """Bytes of positions: queries' rotary parts twice, keys and values once out of their latent's product."""
    latent = {"model": "deepseek-v3-671b", "head_dim": "MLA"}
    moved = {}
    for framework in ("Megatron-Bridge", "NeMo"):
        setup = _setup(**latent, framework=framework)
        kernels = _layer(setup, setup.model.layer_kinds()[-1]).kernels
        moved[framework] = next(kernel.num_bytes for kernel in kernels if kernel.name == "rotary")
    assert moved["Megatron-Bridge"] == 4096 * 64 * 2 * (2 * 64 + 256 + 320)
    assert moved["NeMo"] > 1.4 * moved["Megatron-Bridge"]
