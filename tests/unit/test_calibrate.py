"""Calibration with an engine that answers from a table: what is asked, and what becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from exactmap.errors import ExecutionFailedError, InvalidInputError
from exactmap.sim.cli.calibrate import calibrate as calibrate_command
from exactmap.sim.cost.host import HostProfile, read_host_profile
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.verbs import calibrate as module
from exactmap.sim.verbs.calibrate import (
    Shape,
    calibrate,
    default_shapes,
    shapes_of_plan,
    shapes_of_scenario,
)
from exactmap.sim.workload.presets import find_preset

SCENARIOS = Path(__file__).parents[2] / "scenarios"
TINY = Shape(find_preset("byte-tiny"), 64, 2, 2)


class TableEngine:
    """Stands for ``exactmap-run --time-ops``: times follow from the shape and the number of the visit.

    A layer takes 1000 ns a token and pass F, 1100 I, 1200 W, 1300 B. The second visit of each shape is
    disturbed: everything takes ten times as long.
    """

    def __init__(self) -> None:
        self.asked: list[Mapping[str, int | str]] = []

    def time_ops(self, shape: Mapping[str, int | str]) -> dict[str, Any]:
        self.asked.append(dict(shape))
        same = [one for one in self.asked if _dimensions(one) == _dimensions(shape)]
        slow = 10 if len(same) == 2 else 1
        tokens = int(shape["seq"]) * int(shape["microbatch"])
        layers = int(shape["layers"])
        passes = {step: (1000 + 100 * number) * tokens * slow for number, step in enumerate("FIWB")}
        elements = 1600 * layers
        return {
            "schema_version": 1,
            "kernels": "a table",
            "pass_ns": {
                "layers": {step: ns * layers for step, ns in passes.items()},
                "embedding": {step: ns // 10 for step, ns in passes.items()},
                "head": {step: ns // 2 for step, ns in passes.items()},
            },
            "adamw": {"num_elements": elements, "ns": elements * slow},
            "sum_squares": {"num_elements": elements, "ns": elements // 4 * slow},
            "copies": [{"num_bytes": size, "ns": size // 40 * slow} for size in (4096, 32768)],
            "all_reduce": [{"num_members": shape["threads"], "num_bytes": 4 * elements, "ns": 5000 * slow}],
            "awake": {"hand_over_ns": 140 * slow, "post_ns": 40 * slow},
            "asleep": {"hand_over_ns": 30_000 * slow, "post_ns": 10_000 * slow},
            "instruction_ns": 29.2 * slow,
        }


class Shares:
    """Stands for `LoadMeter`: others take these shares during one visit after the other, then nothing."""

    def __init__(self, *shares: float) -> None:
        self._shares = list(shares)

    def restart(self) -> None:
        """Nothing to read."""

    def others_share(self) -> float:
        return self._shares.pop(0) if self._shares else 0.0


def _dimensions(shape: Mapping[str, int | str]) -> dict[str, int | str]:
    return {key: value for key, value in shape.items() if key != "repeats"}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TableEngine:
    made = TableEngine()
    monkeypatch.setattr(module, "time_ops", made.time_ops)
    monkeypatch.setattr(module, "LoadMeter", Shares)
    monkeypatch.setattr(module, "engine_version", lambda: "exactmap-run 9.9.9")
    return made


def test_a_disturbed_visit_leaves_no_trace_in_the_medians(engine: TableEngine) -> None:
    """One visit of three takes ten times as long; times are those of the other two, a layer by itself."""
    profile = calibrate(None, shapes=[TINY], ranks=2)

    found = {(entry.part, entry.step): entry.ns for entry in profile.passes}
    assert found["layer", "F"] == 1000 * 128
    assert found["layer", "B"] == 1300 * 128
    assert found["head", "I"] == 1100 * 128 // 2
    assert ("embedding", "I") not in found
    assert [(entry.elements, entry.ns) for entry in profile.optimizer] == [(3200, 3200)]
    assert [(entry.bytes, entry.ns) for entry in profile.copies] == [(4096, 102), (32768, 819)]
    assert (profile.awake.post_ns, profile.awake.wake_ns) == (40, 100)
    assert (profile.asleep.post_ns, profile.asleep.wake_ns) == (10_000, 20_000)
    assert profile.instruction_ns == 29
    assert profile.host.engine == "exactmap-run 9.9.9"
    assert len(engine.asked) == 3


def test_visits_that_others_disturbed_are_repeated_and_do_not_count(
    engine: TableEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the second, tenfold slow, were disturbed: three more come, and they alone count."""
    monkeypatch.setattr(module, "LoadMeter", lambda: Shares(0.5, 0.3))

    profile = calibrate(None, shapes=[TINY], ranks=2)

    assert len(engine.asked) == 5
    assert profile.host.others_share == 0
    assert {entry.ns for entry in profile.optimizer} == {3200}


def test_a_host_that_is_never_left_alone_is_measured_and_says_so(
    engine: TableEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After six visits all count; the profile holds the share, and the command tells people."""
    monkeypatch.setattr(module, "default_shapes", lambda: (TINY,))
    monkeypatch.setattr(module, "LoadMeter", lambda: Shares(*[0.4] * 6))
    app = typer.Typer()
    app.command()(calibrate_command)

    answer = CliRunner().invoke(app, ["-o", str(tmp_path / "host.json"), "--ranks", "2"])

    assert answer.exit_code == 0
    assert len(engine.asked) == 6
    assert read_host_profile(tmp_path / "host.json").host.others_share == 0.4
    assert "note: others took 40 % of the cores meanwhile" in answer.stderr


def test_shapes_take_turns(engine: TableEngine) -> None:
    """A disturbance of seconds falls on all shapes: no shape is timed to its end before the next."""
    other = Shape(find_preset("byte-gpt"), 128, 1, 2)

    calibrate(None, shapes=[TINY, other, TINY], ranks=3)

    assert [one["hidden"] for one in engine.asked] == [64, 128] * 3
    assert {one["threads"] for one in engine.asked} == {3}


def test_the_profile_is_written_and_prices_the_plan_that_was_named(
    engine: TableEngine, tmp_path: Path
) -> None:
    """The file reads back equal; the plan's stages take their layers times what a layer took."""
    plan = build_plan(
        find_preset("byte-llama"), schedule="1f1b", pp=2, num_microbatches=2, seq=64, microbatch=2
    )
    path = tmp_path / "my.plan"
    path.write_bytes(write_plan(plan))

    profile = calibrate(tmp_path / "profile.json", plans=[path], ranks=2)

    assert read_host_profile(tmp_path / "profile.json") == profile
    assert [one["layers"] for one in engine.asked] == [2] * 3
    priced = price_plan(plan, profile)
    assert priced.work("F", 0) == 2 * 128_000 + 12_800 + 29
    assert priced.work("B", 1) == 2 * 1300 * 128 + 650 * 128 + 29


def test_a_plan_names_its_fullest_stage(tmp_path: Path) -> None:
    """Three layers and one: three are timed together, as the rank runs them."""
    plan = build_plan(
        find_preset("byte-tiny"), schedule="gpipe", pp=2, num_microbatches=2, seq=32, layers=(3, 1)
    )
    path = tmp_path / "uneven.plan"
    path.write_bytes(write_plan(plan))

    (shape,) = shapes_of_plan(path)

    assert (shape.layers, shape.seq, shape.microbatch) == (3, 32, 1)
    assert shape.words()["ffn"] == 192


@pytest.mark.parametrize("name", ["cpu-quick", "cpu-host", "cpu-gpt"])
def test_without_a_word_the_scenarios_for_this_host_are_measured(name: str) -> None:
    """The default shapes hold everything that the searches of these scenarios may choose."""
    wanted = {tuple(shape.words().items()) for shape in shapes_of_scenario(SCENARIOS / f"{name}.yaml")}

    assert wanted
    assert wanted <= {tuple(shape.words().items()) for shape in default_shapes()}


@pytest.mark.parametrize("ranks", [0, 1, 1000])
def test_one_rank_or_a_thousand_cannot_be_timed(engine: TableEngine, ranks: int) -> None:
    """Hand-overs need two; the message says how many there may be."""
    with pytest.raises(InvalidInputError, match=f"got {ranks} ranks, expected 2 to 64"):
        calibrate(None, shapes=[TINY], ranks=ranks)

    assert not engine.asked


def test_an_engine_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document without the hand-overs is no guess at them."""
    answer = TableEngine()
    monkeypatch.setattr(module, "LoadMeter", Shares)

    def without_hand_overs(shape: Mapping[str, int | str]) -> dict[str, Any]:
        document = answer.time_ops(shape)
        del document["awake"]
        return document

    monkeypatch.setattr(module, "time_ops", without_hand_overs)
    with pytest.raises(ExecutionFailedError, match=r"timings cannot be read: got .*awake"):
        calibrate(None, shapes=[TINY], ranks=2)


def test_the_command_prints_the_profile_or_a_table(
    engine: TableEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json the document is the file; without, people see passes and hand-overs."""
    monkeypatch.setattr(module, "default_shapes", lambda: (TINY,))
    app = typer.Typer()
    app.command()(calibrate_command)
    out = tmp_path / "host.json"

    as_json = CliRunner().invoke(app, ["-o", str(out), "--ranks", "2", "--json"])
    shown = CliRunner().invoke(app, ["-o", str(out), "--ranks", "2"])

    assert as_json.exit_code == shown.exit_code == 0
    assert HostProfile.model_validate_json(as_json.stdout) == read_host_profile(out)
    assert next(iter(json.loads(as_json.stdout))) == "schema_version"
    assert "llama 64/192, 2 x 64: layer" in shown.stdout
    assert "hand-over, receiver asleep" in shown.stdout
    assert "30.0 us" in shown.stdout
