"""The C engine accepts whatever lowering makes, its bytes included, and learns from it what 1F1B learns."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_case import Case, make_data
from order_cases import CASES, lowered

from exactmap.backend_c import check as engine
from exactmap.backend_c.run import RunOptions, run_plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.registry import SCHEDULES

STEPS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


@pytest.mark.parametrize("name", CASES)
def test_a_lowered_plan_is_accepted(name: str) -> None:
    said = engine.verdict(write_plan(lowered(CASES[name])))

    assert (said.code, said.message) == ("ok", "")


def losses(case: Case, data: Path, folder: Path, schedule: str, **options: object) -> list[float | None]:
    """Losses of some steps of a plan that is built whole; its bytes are the engine's own or it is refused."""
    plan = build_plan(
        case.model,
        schedule=schedule,
        pp=case.pp,
        num_microbatches=case.m,
        seq=case.seq,
        microbatch=case.microbatch,
        dp=case.dp,
        optimizer=case.optimizer,
        **options,  # type: ignore[arg-type]
    )
    path = folder / f"{schedule}.plan"
    path.write_bytes(write_plan(plan))
    result = run_plan(path, data, RunOptions(steps=STEPS, timeout_s=60.0))
    return [step.loss for step in result.history]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_learns_what_1f1b_learns(schedule: str, data: Path, tmp_path: Path) -> None:
    case = Case(m=8, tied=True)
    chunks, slices = next(
        (chunks, slices)
        for slices in (2, 1)
        for chunks in (2, 1)
        if not SCHEDULES[schedule].problem(case.pp, case.m, chunks, num_slices=slices)
    )
    got = losses(case, data, tmp_path, schedule, chunks=chunks, slices=slices)

    assert got == pytest.approx(losses(case, data, tmp_path, "1f1b"), rel=1e-6)


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h2", "chimera"])
@pytest.mark.parametrize(
    "options",
    [
        {"shard_params": True},
        {"split_buckets": True},
        {"clock": "free", "late_norm": True},
        {"clock": "free", "late_norm": True, "shard_params": True, "split_buckets": True},
    ],
    ids=["shards", "buckets", "late-norm", "all"],
)
def test_what_becomes_of_gradients_changes_nothing(
    schedule: str, options: dict[str, object], data: Path, tmp_path: Path
) -> None:
    case = Case(m=4, dp=2)
    got = losses(case, data, tmp_path, schedule, **options)

    assert got == pytest.approx(losses(case, data, tmp_path, "1f1b"), rel=1e-6)
