"""Sweeps: every point once, whatever the order, kept as it is done; what is wrong is a row."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.verbs import sweep_point
from exactmap.sim.verbs.sweep_grid import overrides_of, points_of, read_settings

QUICK = Path(__file__).parents[2] / "scenarios" / "cpu-quick.yaml"
SETTINGS = ["pp=1,2,64", "microbatch=1,2"]


def test_every_combination_with_the_last_setting_fastest() -> None:
    settings = read_settings(["network=400G,800 Gb/s", "parallel.tp=[4,8],[16]"])

    assert points_of(settings) == [
        ("400G", "[4,8]"),
        ("400G", "[16]"),
        ("800 Gb/s", "[4,8]"),
        ("800 Gb/s", "[16]"),
    ]
    assert overrides_of(settings, points_of(settings)[1]) == (
        "cluster.scale_out.bandwidth=400 Gb/s",
        "parallel.tp=[16]",
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ([], "nothing to sweep"),
        (["pp"], "not a setting"),
        (["pp=1,,2"], "not a setting"),
        (["=1"], "not a setting"),
        (["pq=1"], "unknown setting"),
        (["pp=1", "parallel.pp=2"], "a setting stands twice"),
        (["pp=1,1"], "a value stands twice"),
    ],
)
def test_settings_that_are_none(settings: list[str], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        exactmap.sweep(QUICK, settings)


def test_points_are_plans_of_their_own(tmp_path: Path) -> None:
    """Each row is what `plan` says; a point that cannot be is a row with its reason."""
    found = exactmap.sweep(QUICK, SETTINGS, out=tmp_path / "s", jobs=1, keep_plans=True)

    assert [(row["pp"], row["microbatch"]) for row in found.rows] == [
        (pp, microbatch) for pp in ("1", "2", "64") for microbatch in ("1", "2")
    ]
    assert [row["status"] for row in found.rows] == ["done"] * 4 + ["refused"] * 2
    assert all("more stages than layers" in str(row["reason"]) for row in found.rows[4:])
    alone = exactmap.plan(QUICK, ["parallel.pp=2", "parallel.microbatch=1"], num_finalists=1)
    assert found.rows[2]["step_s"] == alone.ranking.winner.step_ns / 1e9
    assert found.rows[2]["layout"] == alone.ranking.winner.candidate.label
    assert found.best is max(found.rows[:4], key=lambda row: float(row["tokens_per_s"] or 0))
    plans = sorted((tmp_path / "s" / "points").glob("*.plan"))
    assert alone.content in [path.read_bytes() for path in plans]
    assert len(plans) == 4
    with (tmp_path / "s" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["layout"] for row in table[:4]] == [row["layout"] for row in found.rows[:4]]
    json.dumps(found.to_dict())


def test_finished_points_are_kept_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = exactmap.sweep(QUICK, ["pp=1,2", "microbatch=1"], out=tmp_path, jobs=1)
    again = exactmap.sweep(QUICK, ["microbatch=1,2", "pp=2,1"], out=tmp_path, jobs=1)

    assert (first.num_kept, again.num_kept) == (0, 2)
    by_point = {(row["pp"], row["microbatch"]): row["step_s"] for row in again.rows}
    assert all(by_point[row["pp"], row["microbatch"]] == row["step_s"] for row in first.rows)
    monkeypatch.setattr(sweep_point, "__version__", "another")
    assert exactmap.sweep(QUICK, ["pp=1"], out=tmp_path, jobs=1).num_kept == 0


def test_a_stopped_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted at its second point; a broken file of a point is planned again."""

    def stop(share: float, _what: str) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exactmap.sweep(QUICK, ["pp=1,2", "microbatch=1,2"], out=tmp_path, jobs=1, progress=stop)
    kept = sorted((tmp_path / "points").glob("*.json"))
    assert len(kept) == 2
    kept[0].write_text("{", encoding="utf-8")
    assert exactmap.sweep(QUICK, ["pp=1,2", "microbatch=1,2"], out=tmp_path, jobs=1).num_kept == 1


@pytest.mark.slow
def test_processes_say_the_same(tmp_path: Path) -> None:
    serial = exactmap.sweep(QUICK, SETTINGS, jobs=1)
    both = exactmap.sweep(QUICK, SETTINGS, jobs=2, out=tmp_path)

    assert serial.rows == both.rows


@pytest.mark.slow
def test_an_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """Of 60 points in two processes only those at work are finished, and they are kept."""
    sizes = ",".join(str(1000 + step) for step in range(60))
    command = [str(Path(sys.executable).with_name("exactmap")), "sweep", str(QUICK), "--set"]
    command += [f"training.seed={sizes}", "-o", str(tmp_path), "--jobs", "2", "-q"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and len(list((tmp_path / "points").glob("*.json"))) < 3:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130

    assert 3 <= len(list((tmp_path / "points").glob("*.json"))) < 40


def test_a_scenario_that_is_wrong_ends_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("exactmap: 1\n", encoding="utf-8")
    with pytest.raises(InvalidInputError):
        exactmap.sweep(broken, ["pp=1"])
    with pytest.raises(InvalidInputError, match="no folder for the plans"):
        exactmap.sweep(QUICK, ["pp=1"], keep_plans=True)
