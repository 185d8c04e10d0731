"""Calibration and comparison with the real engine: what they consist of, never how long it took."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_case import make_data

from exactmap.sim.cost.host import read_host_profile
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.check import load_plan
from exactmap.sim.verbs.accuracy import Size, accuracy
from exactmap.sim.verbs.calibrate import Shape, calibrate
from exactmap.sim.workload.model import ModelConfig, ModelKind

pytestmark = pytest.mark.slow


def model(kind: ModelKind) -> ModelConfig:
    return ModelConfig(
        kind=kind,
        layers=4,
        hidden=32,
        heads=4,
        kv_heads=2 if kind is ModelKind.LLAMA else 4,
        head_dim=8,
        ffn=64,
        vocab=259,
        positions=32,
        tied=False,
    )


@pytest.mark.parametrize("kind", list(ModelKind))
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_pass_of_every_part_is_timed(kind: ModelKind, ranks: int, tmp_path: Path) -> None:
    """With as many threads as asked for, two or three; the file is a profile that reads back equal."""
    shape = Shape(model(kind), 16, 2, 2)

    profile = calibrate(tmp_path / "host.json", shapes=[shape], ranks=ranks, quick=True)

    steps = {"layer": "FIWB", "embedding": "FWB", "head": "FIWB"}
    assert {(entry.part, entry.step) for entry in profile.passes} == {
        (part, step) for part, letters in steps.items() for step in letters
    }
    assert profile.ranks_at_once == ranks
    assert {entry.ranks for entry in profile.all_reduce} == {ranks}
    assert [entry.bytes for entry in profile.copies] == [2**12, 2**15, 2**18, 2**21]
    assert profile.host.blas.startswith("cpu-")
    assert profile.host.engine.startswith("exactmap-run ")
    assert read_host_profile(tmp_path / "host.json") == profile


def test_plans_are_predicted_from_the_profile_and_measured_from_their_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve plans of a small model; the trace that is measured holds every instruction of its plan."""
    # What is measured does not matter here, so nobody waits for other tests to leave the cores.
    for name, value in (("MAX_RUNS", 1), ("MAX_WAIT_S", 0.1), ("MAX_CALIBRATION_WAIT_S", 0.1)):
        monkeypatch.setattr(f"exactmap.sim.verbs.accuracy.{name}", value)
    data = make_data(tmp_path).folder
    size = Size("tiny", model(ModelKind.LLAMA), 16, 8)

    report = accuracy(tmp_path, data=data, sizes=[size], num_steps=3, quick=True)

    host = read_host_profile(tmp_path / "hardware-profile.json")
    assert report.host == host
    assert len(report.rows) == 12
    for row in report.rows:
        name = f"tiny-{row.schedule}-m{row.num_microbatches}"
        plan, sha256 = load_plan(tmp_path / f"{name}.plan")
        assert row.predicted_ns == replay(plan, resolve(plan, price_plan(plan, host))).summary().makespan_ns
        trace = read_trace(tmp_path / f"{name}.trace.tsv")
        assert trace.plan_sha256 == sha256
        assert list(trace.steps) == [2, 3, 4]  # two steps before them warm up
        makespans = sorted(trace.of_step(step).summary().makespan_ns for step in trace.steps)
        assert (row.low_ns, row.measured_ns, row.high_ns) == tuple(makespans)
        first = trace.of_step(2)
        for pp, program in enumerate(plan.programs):
            texts = [op for op, rank in zip(first.op, first.pp.tolist(), strict=True) if rank == pp]
            assert len(texts) == len(program.instructions)
