"""Scenarios: what ships is valid, defaults are written out, overrides work, the schema is in step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.scenario.schema import scenario_json_schema
from exactmap.sim.scenario.strict_yaml import read_yaml_file
from exactmap.sim.scenario.types import Engine, Precision

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_effective_scenario_reads_back_to_the_same_scenario(path: Path, tmp_path: Path) -> None:
    """Every default written out changes nothing."""
    scenario = load_scenario(path)
    written = tmp_path / "effective.yaml"
    written.write_text(scenario.effective(), encoding="utf-8")

    again = load_scenario(written)

    assert replace(again, path=scenario.path) == scenario


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_fit_the_published_schema(path: Path) -> None:
    """An editor that checks against scenarios/schema.json accepts what the program accepts."""
    schema = json.loads((ROOT / "scenarios" / "schema.json").read_text(encoding="utf-8"))

    jsonschema.validate(read_yaml_file(path).value, schema)


def test_published_schema_is_in_step(compare_golden: object) -> None:
    """The file is what the classes say now; `pytest --update` writes it."""
    compare_golden(ROOT / "scenarios" / "schema.json", scenario_json_schema())  # type: ignore[operator]


def test_quantities_arrive_in_base_units() -> None:
    """The 220,000-GPU scenario in numbers."""
    scenario = load_scenario(ROOT / "scenarios" / "gb300-220k.yaml")

    assert scenario.cluster.num_gpus == 220_000
    assert scenario.cluster.usable_gpus == 3055 * 64 + 40
    assert scenario.cluster.scale_out.bytes_per_s == 10**11
    assert scenario.training.batch_tokens == 15_120 * 8192
    assert scenario.training.optimizer.min_lr == pytest.approx(8e-6)
    assert 10e12 < scenario.model.num_parameters() < 11e12
    assert scenario.parallel.dp is None
    assert scenario.execution is None


def test_overrides_reach_every_section() -> None:
    """A catalog number, a model size, a list and a scalar."""
    scenario = load_scenario(
        ROOT / "scenarios" / "cpu-host.yaml",
        [
            "cluster.scale_out.bandwidth=400 Gb/s",
            "cluster.num_gpus=4",
            "model.layers=6",
            "parallel.microbatch=[1, 2]",
            "training.steps=7",
            "training.optimizer.warmup_steps=3",
        ],
    )

    assert scenario.cluster.scale_out.bytes_per_s == 50 * 10**9
    assert "scale_out.bandwidth" not in scenario.cluster.facts
    assert "gpu.memory" in scenario.cluster.facts
    assert (scenario.max_gpus, scenario.model.layers, scenario.training.steps) == (4, 6, 7)
    assert scenario.parallel.microbatch == (1, 2)
    assert scenario.execution is Engine.CPU
    assert scenario.training.precision is Precision.FP32


def test_an_unknown_override_is_refused_with_the_nearest_field() -> None:
    """The place is the option itself."""
    with pytest.raises(InvalidInputError) as caught:
        load_scenario(ROOT / "scenarios" / "cpu-host.yaml", ["training.stepz=7"])

    assert str(caught.value).startswith("--set training.stepz=7: training.stepz: unknown field")
    assert "did you mean 'steps'?" in str(caught.value)
