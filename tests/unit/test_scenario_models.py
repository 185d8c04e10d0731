"""Models in scenarios: experts, latents and state spaces in sections of their own; plans refuse them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.scenario.scenario import Scenario, load_scenario
from exactmap.sim.verbs.explain import explain
from exactmap.sim.verbs.map import map as map_ranks
from exactmap.sim.verbs.plan import plan
from exactmap.sim.workload.model import Experts, StateSpace
from exactmap.sim.workload.presets import find_preset, preset_names

REST = "training: {sequence: 64 tokens, batch: 64 sequences}\n"


def write(folder: Path, model: str, rest: str = REST, cluster: str = "h100-8") -> Path:
    path = folder / "s.yaml"
    path.write_text(f"exactmap: 1\ncluster: {cluster}\nmodel: {model}\n{rest}", encoding="utf-8")
    return path


def load(folder: Path, model: str, rest: str = REST) -> Scenario:
    return load_scenario(write(folder, model, rest))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_written_out_and_read_back(name: str, tmp_path: Path) -> None:
    """Blocks that a model has not are not mentioned."""
    scenario = load(tmp_path, name)
    text = scenario.effective()
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")

    again = load_scenario(tmp_path / "again.yaml")

    assert again.model == scenario.model == find_preset(name)
    written = yaml.safe_load(text)["model"]
    model = scenario.model
    for block in ("latent", "experts", "state_space"):
        assert (block in written) is (getattr(model, block) is not None)
    assert ("window" in written) is bool(model.window)


def test_sizes_beside_a_preset_replace_single_ones(tmp_path: Path) -> None:
    """A mixture with half the experts; everything else stays."""
    model = load(tmp_path, "{preset: deepseek-v3, layers: 16, experts: {num_experts: 128}}").model
    base = find_preset("deepseek-v3")

    assert base.experts is not None
    expected = replace(base, layers=16, experts=replace(base.experts, num_experts=128), name="deepseek-v3*")
    assert model == expected


def test_a_dense_preset_becomes_a_mixture(tmp_path: Path) -> None:
    """If all that has no default is there."""
    model = load(tmp_path, "{preset: llama3-8b, experts: {num_experts: 8, top_k: 2, ffn: 1024}}").model

    assert model.experts == Experts(8, 2, 1024)
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path, "{preset: llama3-8b, experts: {num_experts: 8}, latent: {kv_rank: 512}}")
    assert "model.experts: a part of the model lacks sizes: got no top_k, ffn" in str(caught.value)
    assert "model.latent: a part of the model lacks sizes: got no q_rank, nope_dim, rope_dim, v_dim" in str(
        caught.value
    )


def test_a_hybrid_may_be_written_out(tmp_path: Path) -> None:
    """Sizes, a letter for each layer, and what the letters stand for."""
    sizes = "kind: llama, layers: 4, hidden: 64, heads: 4, vocab: 259, positions: 128, gated: false"
    space = "state_space: {heads: 4, head_dim: 16, state: 16, groups: 2}"

    model = load(tmp_path, f"{{{sizes}, pattern: 'M-*-', {space}, mtp_layers: 1}}").model

    assert (model.pattern, model.mtp_layers, model.has_gate) == ("M-*-", 1, False)
    assert model.state_space == StateSpace(4, 16, 16, 2)
    with pytest.raises(InvalidInputError, match=r"model.state_space: a part of the model lacks sizes"):
        load(tmp_path, f"{{{sizes}, pattern: 'M-*-', state_space: {{heads: 4}}}}")
    with pytest.raises(InvalidInputError, match=r"s.yaml:\d+: model.state_space: the pattern has layers"):
        load(tmp_path, f"{{{sizes}, pattern: 'M-*-'}}")


def test_experts_are_divided_by_their_ranks(tmp_path: Path) -> None:
    """And a model without any has one rank."""
    rest = REST + "parallel: {ep: 3}\n"

    with pytest.raises(InvalidInputError, match="no expert-parallel size divides the experts: got 3"):
        load(tmp_path, "mixtral-8x7b", rest)
    with pytest.raises(InvalidInputError, match="the model has no experts: got 3, expected 1"):
        load(tmp_path, "llama3-8b", rest)
    assert load(tmp_path, "mixtral-8x7b", REST + "parallel: {ep: 4}\n").parallel.ep == (4,)


@pytest.mark.parametrize("name", [name for name in preset_names() if not find_preset(name).is_plain])
def test_the_search_refuses_what_a_plan_cannot_hold(name: str, tmp_path: Path) -> None:
    """Never priced as another model: well formed, yet no plan fits (exit code 4)."""
    path = write(tmp_path, name)

    with pytest.raises(InfeasibleError, match="no plan can hold this model") as caught:
        plan(path)

    assert caught.value.exit_code == 4
    assert f"{name} with " in str(caught.value)


def test_verbs_that_need_a_plan_refuse_too(tmp_path: Path) -> None:
    """`explain` and `map` search first."""
    path = write(tmp_path, "qwen3-30b-a3b")

    for verb in (explain, map_ranks):
        with pytest.raises(InfeasibleError, match=r"no plan can hold this model: .* with experts"):
            verb(path)


def test_the_engine_of_this_host_runs_plain_models(tmp_path: Path) -> None:
    """A scenario that is to be executed says so when it is read (exit code 3)."""
    rest = "training: {sequence: 64 tokens, batch: 64 sequences, precision: fp32}\nexecution: {engine: cpu}\n"
    path = write(tmp_path, "{preset: byte-llama, window: 16}", rest, "cpu-host")

    with pytest.raises(InvalidInputError, match="the C engine runs layers that are alike") as caught:
        load_scenario(path)

    assert "byte-llama* with a sliding window" in str(caught.value)
