"""What the words of a row come to: model, precision, ZeRO, recompute, software, machine."""

from __future__ import annotations

import pytest
from row_cases import row

from exactmap.errors import InvalidInputError
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.b200_rows import b200_rows
from exactmap.sim.published.cells import decimal, flag_number, integer, is_on, number, words
from exactmap.sim.published.checked_range import checked_range_csv
from exactmap.sim.published.model_of import model_of
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.published.software_of import precision_of, recompute_of, software_of, zero_of
from exactmap.sim.workload.model import Mixer, Mlp, ModelConfig


def _model(**cells: str) -> ModelConfig:
    return model_of(row(**cells), [])


def test_cells_are_numbers_or_say_which_column_is_not() -> None:
    cells = Row({"a": " 8.0 ", "b": "7.5", "c": "", "d": "x", "e": "2e3", "f": "-1"})

    assert integer(cells, "a") == 8
    assert integer(cells, "e") == 2000
    assert integer(cells, "c", 5) == 5
    assert number(cells, "b") == 7.5
    for column in ("b", "c", "d", "f", "gone"):
        with pytest.raises(InvalidInputError, match=f"^{column}: "):
            integer(cells, column)


def test_words_are_told_apart_by_spaces_commas_and_semicolons() -> None:
    cells = Row({"flags": "Overlap_Grad, mtp=2;etp=x  first_dense=12345678"})

    assert words(cells) == {"overlap_grad", "mtp=2", "etp=x", "first_dense=12345678"}
    assert flag_number(cells, "mtp") == 2
    assert flag_number(cells, "etp") is None
    assert flag_number(cells, "first_dense") is None


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), ("1.0", True), ("True", True), ("0", False), ("", False)]
)
def test_a_switch_is_on_however_a_table_writes_it(text: str, on: bool) -> None:
    assert is_on(Row({"seq_par": text}), "seq_par") is on
    assert setup_of(row(seq_par=text)).split.sequence_parallel is on


def test_digits_beyond_any_size_are_no_number() -> None:
    assert decimal("9" * 10) == 0
    assert decimal("\u00b2") == 0


def test_a_family_says_what_columns_do_not() -> None:
    deepseek = _model(model="DeepSeek-V3", head_dim="MLA", n_experts="256", top_k="8", moe_ffn="2048")
    oss = _model(model="GPT-OSS-120B", layers="4")
    gpt = _model(model="GPT-3 175B", kv_heads="64")

    assert deepseek.latent is not None
    assert (deepseek.latent.q_rank, deepseek.latent.kv_rank, deepseek.mtp_layers) == (1536, 512, 1)
    assert deepseek.experts is not None
    assert (deepseek.experts.first_dense, deepseek.experts.most_hosts) == (3, 4)
    assert [kind.mixer for kind in oss.layer_kinds()] == [Mixer.WINDOW, Mixer.FULL] * 2
    assert (gpt.tied, gpt.has_gate) == (True, False)


def test_flags_of_a_row_stand_above_its_family() -> None:
    model = _model(
        model="DeepSeek-V3",
        head_dim="MLA",
        n_experts="256",
        top_k="8",
        moe_ffn="2048",
        flags="mtp=0 first_dense=1",
    )

    assert model.mtp_layers == 0
    assert [kind.mlp for kind in model.layer_kinds()[:2]] == [Mlp.DENSE, Mlp.EXPERTS]


def test_an_unknown_model_is_gated_if_its_parameters_say_so() -> None:
    """Two or three matrices: whichever comes nearer."""
    sizes = {
        "model": "mine",
        "layers": "32",
        "hidden": "4096",
        "heads": "32",
        "kv_heads": "32",
        "head_dim": "128",
    }
    sizes |= {"ffn": "16384", "vocab": "32000"}

    # 32 x (4 + 2 or 3 x 4) h^2.
    assert not _model(**sizes, params_b="6.6").has_gate
    assert _model(**sizes, params_b="8.7").has_gate
    assert not _model(**sizes).has_gate
    assert _model(**(sizes | {"ffn": "11008"})).has_gate


def test_a_hybrid_without_a_known_pattern_spreads_its_layers_and_says_so() -> None:
    assumed: list[str] = []
    model = model_of(row(model="mine", arch="hybrid", layers="50"), assumed)
    kinds = [kind.mixer for kind in model.layer_kinds()]

    assert len(kinds) == 50
    assert kinds.count(Mixer.FULL) == 4
    assert any(word.startswith("pattern=") for word in assumed)


@pytest.mark.parametrize(
    ("cells", "zero"),
    [
        ({"dist_opt": "0"}, (0, 0)),
        ({"dist_opt": "1"}, (1, 0)),
        ({"dist_opt": "0", "flags": "dist_opt"}, (1, 0)),
        ({"fsdp": "ZeRO-1"}, (1, 0)),
        ({"fsdp": "ZeRO-2"}, (2, 0)),
        ({"fsdp": "ZeRO-3 over DP"}, (3, 0)),
        ({"fsdp": "64"}, (3, 64)),
        ({"fsdp": "64.0"}, (3, 64)),
        ({"fsdp": "sharding groups of 128 GPUs"}, (3, 128)),
        ({"framework": "torchtitan", "dist_opt": "0"}, (3, 0)),
        ({"framework": "torchtitan", "fsdp": "1", "dist_opt": "0"}, (0, 0)),
        ({"framework": "LLM-Foundry", "flags": "SHARD_GRAD_OP"}, (2, 0)),
    ],
)
def test_zero_in_words(cells: dict[str, str], zero: tuple[int, int]) -> None:
    assert zero_of(row(**cells)) == zero


@pytest.mark.parametrize(
    ("text", "compute", "scaling"),
    [
        ("BF16", "bf16", ""),
        ("", "bf16", ""),
        ("FP16", "fp16", ""),
        ("FP32", "fp32", ""),
        ("FP8", "fp8", "tensor"),
        ("FP8-CS", "fp8", "tensor"),
        ("FP8-MX", "fp8", "mx"),
        ("MXFP8", "fp8", "mx"),
        ("FP8-BLOCK", "fp8", "block"),
        ("NVFP4", "fp4", "nv"),
    ],
)
def test_precision_in_words(text: str, compute: str, scaling: str) -> None:
    found = precision_of(row(precision=text), 1)

    assert (found.compute, found.scaling) == (compute, scaling)


def test_state_of_a_parameter_in_each_style() -> None:
    """Megatron 2 + 4 + 12; AMP 4 + 4 + 8 with weights cast at each use; pure 2 + 2 + 4."""

    def each(**cells: str) -> tuple[float, float, float]:
        found = precision_of(row(**cells), 0)
        return found.param_bytes, found.grad_bytes, found.master_bytes + 2 * found.moment_bytes

    assert each(framework="Megatron-LM") == (2, 4, 12)
    assert each(precision="BF16 (amp)") == (4, 4, 8)
    assert each(precision="BF16 (pure)") == (2, 2, 4)
    assert each(precision="FP16", framework="Megatron-DeepSpeed") == (2, 2, 12)


@pytest.mark.parametrize(
    ("text", "kind", "modules"),
    [
        ("none", "none", set()),
        ("full", "full", set()),
        ("selective", "modules", {"core_attn"}),
        ("modules:mlp+moe_act", "modules", {"mlp", "moe_act"}),
        ("modules:nonsense", "modules", set()),
        ("save_dot_products", "modules", {"save_products"}),
        ("minimal", "modules", {"save_products"}),
        ("per-op SAC", "modules", {"save_half_products"}),
    ],
)
def test_recompute_in_words(text: str, kind: str, modules: set[str]) -> None:
    found = recompute_of(row(recompute=text), 80, [])

    assert (found.kind, found.modules) == (kind, modules)


def test_full_recompute_of_some_layers_is_a_share_of_a_chunk() -> None:
    # 80 layers on 4 ranks of 5 chunks: 4 each.
    assert recompute_of(row(recompute="full-layer 3"), 80, []).share == 0.75
    assert recompute_of(row(recompute="full-layer 99"), 80, []).share == 1.0


def test_what_a_source_does_not_say_is_assumed_and_named() -> None:
    for text, framework, taken in (
        ("not stated", "Megatron-Bridge", "recompute=none"),
        ("", "MaxText", "recompute=save_products"),
    ):
        assumed: list[str] = []
        recompute_of(row(recompute=text, framework=framework), 80, assumed)
        assert assumed == [taken]


@pytest.mark.parametrize(
    ("framework", "family"),
    [
        ("Megatron-LM", "megatron"),
        ("Megatron-DeepSpeed", "megatron-deepspeed"),
        ("Megatron-Bridge", "megatron-bridge"),
        ("NeMo 2.0", "nemo"),
        ("LLM-Foundry/Composer", "composer"),
        ("torchtitan", "torchtitan"),
        ("MaxText", "jax"),
        ("PaxML", "pax"),
        ("llm.c", "llm.c"),
        ("DeepSeek HAI-LLM", "hai-llm"),
    ],
)
def test_frameworks_in_words(framework: str, family: str) -> None:
    assert software_of(row(framework=framework), []).family == family


def test_old_megatron_stores_scores_and_new_does_not() -> None:
    old, new, unnamed = (
        software_of(row(framework="Megatron-LM", release=release), []).fused_attention
        for release in ("2021", "2025", "")
    )

    assert (old, new, unnamed) == (False, True, False)


@pytest.mark.parametrize(
    ("cells", "dispatcher"),
    [
        ({"ep": "8"}, "all_to_all"),
        ({"ep": "16"}, "deepep"),
        ({"ep": "64", "nvlink_domain": "72"}, "hybridep"),
        ({"ep": "64", "flags": "dispatcher=alltoall"}, "all_to_all"),
        ({"ep": "64", "flags": "etp=1"}, "all_to_all"),
        ({"framework": "DeepSeek"}, "deepep"),
    ],
)
def test_the_usual_dispatcher(cells: dict[str, str], dispatcher: str) -> None:
    assert software_of(row(**cells), []).dispatcher == dispatcher


def test_the_host_keeps_no_more_than_all_of_the_optimizer() -> None:
    assert software_of(row(flags="offload 50%"), []).optimizer_offload == 0.5
    assert software_of(row(flags="offload 500%"), []).optimizer_offload == 1.0
    assert software_of(row(flags="50%"), []).optimizer_offload == 0.0


def test_machines_are_as_large_as_the_run_and_as_the_row_says() -> None:
    small = setup_of(row(n_gpus="8", tp="8", pp="1", dp="1", vpp="", nvlink_domain="")).cluster
    rack = setup_of(row(gpu="GB200", nvlink_domain="72", nic_gbps_per_gpu="800")).cluster

    assert small.num_gpus == 8
    assert (rack.scale_up.domain_size, rack.used_per_domain) == (72, 64)
    assert rack.scale_out.bytes_per_s == 100_000_000_000


def test_the_runs_on_b200_are_rows_like_all_others() -> None:
    rows = list(b200_rows())

    assert len(rows) == 29
    for each in rows:
        setup = setup_of(each)
        assert setup.split.num_ranks == 8
        assert setup.batch.num_microbatches == int(each["n_microbatches"])
        assert float(each["step_time_s"]) > 0.0


def test_every_packaged_run_is_read_as_it_states_itself() -> None:
    for each in list(published_and_b200())[::5]:
        if not each["step_time_s"] or each["gpu"] == "TPUv4" or not each["seq_len"]:
            continue
        setup = setup_of(each)
        assert setup.split.num_ranks == int(each["n_gpus"])
        assert setup.model.layers == int(each["layers"] or setup.model.layers)
        assert setup.batch.rank_tokens * setup.split.dp == int(each["gbs"]) * int(each["seq_len"])


def test_the_checked_range_is_that_of_the_rows() -> None:
    rows = [
        row(step_time_s="1"),
        row(step_time_s="1", n_gpus="128", dp="8", seq_len="4096"),
        row(n_gpus="256", dp="16"),
        row(step_time_s="1", gpu="none"),
    ]
    lines = checked_range_csv(rows).splitlines()

    assert lines[-1] == "H100,dense,64,128,4096,8192,8192,8192"
    assert len(lines) == 3
