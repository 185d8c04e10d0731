"""Whatever a schedule does with a step, the model learns the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from any_order import any_order, crossed
from engine_case import Case, make_data
from engine_runs import PLACEMENTS, check_first_gradients, losses, one_f_one_b, run
from plain_plan import PlainPlan

from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.schedules.order import loop_placement

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


FEATURES: dict[str, dict[str, object]] = {
    "two-ranks": {},
    "two-ranks-split": {"split": True},
    "braids": {"braids": True},
    "braids-split": {"braids": True, "split": True},
    "again": {"again": (0, 1, 3)},
    "away": {"away": (0, 2, 3)},
    "slices": {"slices": 3},
    "slices-split": {"slices": 4, "split": True},
    "all": {"slices": 2, "again": (1, 3), "away": (0, 1), "braids": True, "split": True},
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("placement", ["crossed2", "crossed4", "loop2", "loop4"])
@pytest.mark.parametrize("case", [Case(), Case(kind="gpt", tied=True, dp=2, m=2)], ids=["llama", "gpt-tied"])
def test_every_feature_learns_what_1f1b_learns(
    case: Case, placement: str, feature: str, data: Path, tmp_path: Path
) -> None:
    """Six steps in a random order: each loss within 1e-6, and the validation's."""
    where = PLACEMENTS[placement]
    order = any_order(len(feature), case.m, where, **FEATURES[feature])  # type: ignore[arg-type]
    got = run(PlainPlan(case, order), data, tmp_path, eval_sequences=5)
    expected = one_f_one_b(case.having(pp=order.num_ranks), data, tmp_path, eval_sequences=5)

    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    assert got.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
    norms = [step.grad_norm for step in expected.history]
    assert [step.grad_norm for step in got.history] == pytest.approx(norms, rel=1e-5)
    assert got.step_allocations == 0


@pytest.mark.parametrize("kind", ["llama", "gpt"])
@pytest.mark.parametrize("feature", ["two-ranks", "again", "slices", "all"])
def test_first_gradients_are_those_of_float64(kind: str, feature: str, data: Path, tmp_path: Path) -> None:
    """Each stage on two ranks of two replicas, one parameter tied: each gradient within 1e-4."""
    case = Case(kind=kind, tied=True, dp=2, m=2)
    order = any_order(3, case.m, crossed(4), **FEATURES[feature])  # type: ignore[arg-type]
    check_first_gradients(PlainPlan(case, order), data, tmp_path)


def test_a_rank_without_microbatches_adds_nothing(data: Path, tmp_path: Path) -> None:
    """One microbatch goes down; the ranks of the way up hold the same parameters and hand in zeros."""
    case = Case(m=1)
    idle = any_order(1, case.m, crossed(2))
    got = run(PlainPlan(case, idle), data, tmp_path)

    assert losses(got) == losses(one_f_one_b(case, data, tmp_path))
    check_first_gradients(PlainPlan(case, any_order(1, case.m, crossed(4))), data, tmp_path)


def test_both_ranks_of_a_stage_start_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    """It is written by the first of the two and read by both; the bits are those of one long run."""
    plan = PlainPlan(Case(tied=True), any_order(2, 4, crossed(2)))
    whole = run(plan, data, tmp_path, out=tmp_path / "whole")
    run(plan, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = run(plan, data, tmp_path, resume=tmp_path / "half", out=tmp_path / "rest")

    assert losses(rest) == losses(whole)[3:]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "rest" / name).read_bytes()


def test_the_trace_has_the_rows_of_the_plan_in_its_order(data: Path, tmp_path: Path) -> None:
    """One row an instruction, a braid too; times of a rank never go back; a copy moves in its wait."""
    order = any_order(7, 4, crossed(2), braids=True, away=(0, 1))
    plan = PlainPlan(Case(), order)
    run(plan, data, tmp_path, steps=2, trace=tmp_path / "t.tsv", trace_steps=(1, 1))
    parsed = read_plan((tmp_path / "a.plan").read_bytes(), "a.plan")
    rows = [line.split("\t") for line in (tmp_path / "t.tsv").read_text().splitlines()[2:]]
    program_lines = (tmp_path / "a.plan").read_text().splitlines()
    for rank in range(2):
        mine = [row for row in rows if row[3] == str(rank)]

        assert len(mine) == len(parsed.program(rank).instructions)
        assert [row[6] for row in mine] == [program_lines[int(row[5]) - 1] for row in mine]
        ends = [int(row[9]) for row in mine]
        starts = [int(row[7]) for row in mine]
        assert all(start <= end for start, end in zip(starts, ends, strict=True))
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert any(row[6].startswith("FB{") for row in rows)
    copies = {row[6].split()[1]: int(row[8]) for row in rows if row[6].startswith("OFF ")}
    for row in rows:
        if row[6].startswith("WOFF "):
            assert int(row[7]) <= copies[row[6].split()[1]] <= int(row[9])
    assert len(read_trace(tmp_path / "t.tsv").step) == len(rows)


def test_stashes_in_host_memory_are_counted_apart(data: Path, tmp_path: Path) -> None:
    """Host bytes of a rank are its o slots, as large as its a and w slots together; none without offload."""
    order = any_order(3, 4, loop_placement(2, 1), away=(0,))
    result = run(PlainPlan(Case(), order), data, tmp_path, steps=1)
    pools = read_plan((tmp_path / "a.plan").read_bytes(), "a.plan").pools
    size = {(pool.pp, pool.letter): pool.bytes for pool in pools}
    num = {(pool.pp, pool.letter): pool.num for pool in pools}

    assert result.host_bytes == (num[0, "o"] * size[0, "o"], 0)
    assert size[0, "o"] == size[0, "a"] + size[0, "w"]
