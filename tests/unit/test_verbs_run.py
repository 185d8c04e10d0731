"""The verb `run`, with the C engine: the loop from a plan to an execution in the words of a prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap
from exactmap.backend_c.run import StepMetrics
from exactmap.errors import ExactmapError, InvalidInputError
from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.check import load_plan
from exactmap.sim.report.memory import memory_curve
from exactmap.sim.report.result import read_result

QUICK = Path(__file__).parents[2] / "scenarios" / "cpu-quick.yaml"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan and a small data set."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "texts").mkdir()
    for number in range(8):
        (folder / "texts" / f"{number}.txt").write_text(f"line {number}\n" * 500, encoding="ascii")
    exactmap.data([folder / "texts"], folder / "tokens", val_fraction=0.25)
    exactmap.plan(QUICK, out=folder / "q.plan")
    return folder


def test_execution_is_recorded(ready: Path, tmp_path: Path) -> None:
    """Steps are told one by one, counted from 1; the result is that of the median traced step."""
    told: list[tuple[StepMetrics, int]] = []
    done = exactmap.run(
        ready / "q.plan",
        data=ready / "tokens",
        out=tmp_path,
        steps=5,
        traced_steps=3,
        on_step=lambda step, num_steps: told.append((step, num_steps)),
    )
    plan, plan_sha256 = load_plan(ready / "q.plan")
    trace = read_trace(tmp_path / "trace.tsv")
    makespans = sorted(trace.of_step(step).summary().makespan_ns for step in trace.steps)

    assert [(step.step, num) for step, num in told] == [(number, 5) for number in range(1, 6)]
    assert trace.steps == (2, 3, 4)
    assert done.result is not None
    assert done.result == read_result(tmp_path / "execution.json")
    assert done.result.step_time_ns == makespans[1]
    assert done.result.plan_sha256 == done.run.plan_sha256 == plan_sha256
    assert done.run.arena_bytes == tuple(arena.bytes for arena in plan.arenas)
    assert done.run.step_allocations == 0
    assert all(path.exists() for path in done.files)


def test_memory_of_an_execution(ready: Path, tmp_path: Path) -> None:
    """The slots of an executed step fill the same pools as those of a predicted one."""
    exactmap.run(ready / "q.plan", data=ready / "tokens", out=tmp_path, steps=1, pictures=False)
    plan, _ = load_plan(ready / "q.plan")
    trace = read_trace(tmp_path / "trace.tsv").of_step(0)
    for rank in range(plan.mesh.pp):
        curve = memory_curve(plan, trace, rank)
        pools = {pool.letter: pool.num * pool.bytes for pool in plan.pools if pool.pp == rank}

        assert {letter: int(live.max()) for letter, live in curve.live_bytes.items()} == pools
        assert all(int(live[-1]) == 0 for live in curve.live_bytes.values())


def test_prediction_and_execution_compare(ready: Path, tmp_path: Path) -> None:
    exactmap.simulate(ready / "q.plan", out=tmp_path / "a", pictures=False)
    exactmap.run(ready / "q.plan", data=ready / "tokens", out=tmp_path / "b", steps=2, pictures=False)
    report = exactmap.compare(tmp_path / "a", tmp_path / "b", out=tmp_path / "c")
    arenas = [row for row in report.comparison.rows if row.name.startswith("arena")]

    assert report.comparison.same_plan
    assert [row.difference for row in arenas] == [0.0, 0.0]
    assert len(report.files) == 3


def test_nothing_is_kept_without_a_folder(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = exactmap.run(ready / "q.plan", data=ready / "tokens", steps=1)

    assert (done.result, done.files) == (None, ())
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_none(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no data to train on"):
        exactmap.run(ready / "q.plan")
    with pytest.raises(ExactmapError) as caught:
        exactmap.run(ready / "q.plan", data=tmp_path)

    assert caught.value.exit_code == 3


def test_equal_seeds_sample_equal_texts(ready: Path, tmp_path: Path) -> None:
    exactmap.run(ready / "q.plan", data=ready / "tokens", out=tmp_path, steps=1, pictures=False)
    drawn = [exactmap.sample(tmp_path / "checkpoint", num_tokens=32, seed=seed) for seed in (3, 3, 4)]

    assert drawn[0].continuation == drawn[1].continuation != drawn[2].continuation
    assert drawn[0].to_dict()["num_bytes"] == len(drawn[0].continuation)
