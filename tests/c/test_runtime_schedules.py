"""Whatever a schedule does with a step, the model learns the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference_numpy as ref
from any_order import any_order, crossed
from engine_case import Case, make_data, step_tokens
from plain_plan import PlainPlan
from safetensors.numpy import load_file, save_file

from exactmap.backend_c.run import RunOptions, RunResult, run_plan
from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.schedules.order import loop_placement

STEPS = 6

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


def losses(result: RunResult) -> list[float | None]:
    return [step.loss for step in result.history]


def run(plan: PlainPlan, data: Path, folder: Path, **options: object) -> RunResult:
    chosen = {"steps": STEPS, "timeout_s": 60.0, **options}
    return run_plan(plan.write(folder / "a.plan"), data, RunOptions(**chosen))  # type: ignore[arg-type]


def one_f_one_b(case: Case, data: Path, folder: Path, **options: object) -> RunResult:
    """What every other plan is held against."""
    plan = case.having(schedule="1f1b").write(folder / "reference.plan")
    chosen = {"steps": STEPS, "timeout_s": 60.0, **options}
    return run_plan(plan, data, RunOptions(**chosen))  # type: ignore[arg-type]


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
PLACEMENTS = {
    "crossed2": crossed(2) + crossed(2)[::-1],
    "crossed4": crossed(4),
    "loop1": loop_placement(1, 3),
    "loop2": loop_placement(2, 2),
    "loop4": loop_placement(4, 1),
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


def first_gradients(plan: PlainPlan, data: Path, folder: Path) -> None:
    """Hold the first step's gradients against float64, through the first moments of AdamW."""
    case = plan.case
    path = plan.write(folder / "a.plan")
    run_plan(path, data, RunOptions(steps=0, out=folder / "start"))
    run_plan(path, data, RunOptions(steps=1, out=folder / "one", timeout_s=60.0))
    params = {k: v.astype(np.float64) for k, v in load_file(folder / "start" / "model.safetensors").items()}
    moments = load_file(folder / "one" / "optimizer.safetensors")
    tokens, targets = step_tokens(case, data, 0)
    _, grads, _ = ref.loss_and_gradients(case.reference, params, tokens, targets, 1.0 / tokens.size)
    norm = float(np.sqrt(sum((g**2).sum() for g in grads.values())))
    factor = min(1.0, case.optimizer.clip / norm)
    for name, grad in grads.items():
        got = moments[f"{name}.exp_avg"].astype(np.float64) / (1 - case.optimizer.beta1) / factor
        bound = 1e-4 * max(float(np.linalg.norm(grad)), 1e-6 * norm)

        assert np.linalg.norm(got - grad) <= bound, name


@pytest.mark.parametrize("kind", ["llama", "gpt"])
@pytest.mark.parametrize("feature", ["two-ranks", "again", "slices", "all"])
def test_first_gradients_are_those_of_float64(kind: str, feature: str, data: Path, tmp_path: Path) -> None:
    """Each stage on two ranks of two replicas, one parameter tied: each gradient within 1e-4."""
    case = Case(kind=kind, tied=True, dp=2, m=2)
    order = any_order(3, case.m, crossed(4), **FEATURES[feature])  # type: ignore[arg-type]
    first_gradients(PlainPlan(case, order), data, tmp_path)


def test_a_rank_without_microbatches_adds_nothing(data: Path, tmp_path: Path) -> None:
    """One microbatch goes down; the ranks of the way up hold the same parameters and hand in zeros."""
    case = Case(m=1)
    idle = any_order(1, case.m, crossed(2))
    got = run(PlainPlan(case, idle), data, tmp_path)

    assert losses(got) == losses(one_f_one_b(case, data, tmp_path))
    first_gradients(PlainPlan(case, any_order(1, case.m, crossed(4))), data, tmp_path)


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


# ---- the norm in the next step ----


def expected_repeats(norms: list[float], clip: float) -> list[int]:
    """A step is run again if the step before was clipped: its first rank knew too little to clip as much."""
    return [0, *(int(norm > clip) for norm in norms[:-1])]


@pytest.mark.parametrize("clip", [1e-3, 1.735, 1e6], ids=["always", "sometimes", "never"])
@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize("placement", ["loop2", "loop4", "crossed4"])
def test_a_late_norm_learns_what_an_early_one_learns(
    placement: str, dp: int, clip: float, data: Path, tmp_path: Path
) -> None:
    """Wrong updates are taken back and made rightly; the steps that began with them are run again."""
    base = Case()
    case = base.having(m=4 // dp, dp=dp, optimizer=replace(base.optimizer, clip=clip))
    order = any_order(5, case.m, PLACEMENTS[placement], split=True)
    got = run(PlainPlan(case, order, late=True), data, tmp_path, eval_sequences=5, out=tmp_path / "late")
    expected = one_f_one_b(
        case.having(pp=order.num_ranks), data, tmp_path, eval_sequences=5, out=tmp_path / "early"
    )

    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    assert got.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
    norms = [step.grad_norm or 0.0 for step in expected.history]
    assert [step.grad_norm for step in got.history] == pytest.approx(norms, rel=1e-5)
    assert [step.repeats for step in got.history] == expected_repeats(norms, clip)
    assert got.repeated_steps == sum(expected_repeats(norms, clip))
    assert got.step_allocations == 0
    late = load_file(tmp_path / "late" / "optimizer.safetensors")
    for name, early in load_file(tmp_path / "early" / "optimizer.safetensors").items():
        np.testing.assert_allclose(late[name], early, rtol=1e-3, atol=1e-5 * float(np.abs(early).max()))


def test_a_late_norm_may_clip_now_and_then(data: Path, tmp_path: Path) -> None:
    """With a limit amid the norms some steps are repeated and some are not: the test before means something."""
    case = Case(optimizer=replace(Case().optimizer, clip=1.735))
    norms = [step.grad_norm or 0.0 for step in one_f_one_b(case, data, tmp_path).history]

    assert 0 < sum(expected_repeats(norms, 1.735)) < STEPS - 1


def overflowing_weights(case: Case, data: Path, folder: Path) -> Path:
    """Weights by which the last layer's MLP, and nothing else, gets gradients that are not finite.

    Its activations are about 1e36, of which a product with zeros keeps nothing; the head is large, so that the
    gradient that meets them is, too.
    """
    plan = case.having(schedule="1f1b").write(folder / "start.plan")
    run_plan(plan, data, RunOptions(steps=0, out=folder / "start"))
    path = folder / "start" / "model.safetensors"
    weights = load_file(path)
    base = f"model.layers.{case.layers - 1}.mlp"
    for name in ("gate_proj", "up_proj"):
        weights[f"{base}.{name}.weight"] *= np.float32(1e19)
    weights[f"{base}.down_proj.weight"] *= 0
    weights["lm_head.weight"] *= np.float32(1e8)
    save_file(weights, folder / "overflow.safetensors", metadata={"format": "pt"})
    return folder / "overflow.safetensors"


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_late_norm_takes_back_what_is_not_finite(clip: float, data: Path, tmp_path: Path) -> None:
    """The first rank's part is finite and its weights move; the total is not, and they move back."""
    case = Case(optimizer=replace(Case().optimizer, clip=clip))
    weights = overflowing_weights(case, data, tmp_path)
    plan = PlainPlan(case, any_order(5, case.m, loop_placement(2, 1)), late=True)
    got = run(plan, data, tmp_path, init=weights, out=tmp_path / "late")
    expected = one_f_one_b(case, data, tmp_path, init=weights, out=tmp_path / "early")

    assert expected.skipped_steps == got.skipped_steps == STEPS
    assert got.repeated_steps == STEPS - 1
    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    before, after = load_file(weights), load_file(tmp_path / "late" / "model.safetensors")
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=1e-7)
    assert json.loads((tmp_path / "late" / "state.json").read_text())["updates"] == 0


def test_a_late_norm_is_settled_before_a_checkpoint(data: Path, tmp_path: Path) -> None:
    """Three and three steps give what six give, though the step between is closed out of turn."""
    case = Case(optimizer=replace(Case().optimizer, clip=0.1))
    plan = PlainPlan(case, any_order(5, case.m, loop_placement(2, 1)), late=True)
    whole = run(plan, data, tmp_path)
    often = run(plan, data, tmp_path, eval_sequences=3, eval_every=2)
    run(plan, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = run(plan, data, tmp_path, resume=tmp_path / "half")

    assert losses(rest) == pytest.approx(losses(whole)[3:], rel=1e-9)
    assert losses(often) == pytest.approx(losses(whole), rel=1e-9)
    assert whole.repeated_steps == 5
    assert [step.repeats for step in often.history] == [0, 1, 0, 1, 0, 1]


# ---- shards ----


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize(
    ("kind", "placement", "rounds"),
    [
        *((kind, placement, 1) for kind in ("llama", "gpt") for placement in PLACEMENTS),
        ("llama", "loop2", 2),
        ("llama", "loop4", 2),
        ("gpt", "loop1", 2),
    ],
)
def test_shards_learn_what_whole_parameters_learn(
    kind: str, placement: str, rounds: int, late: bool, data: Path, tmp_path: Path
) -> None:
    """Parameters, gradients and moments cut over three replicas; gathered for passes and for checkpoints."""
    case = Case(kind=kind, tied=kind == "gpt", dp=3, m=2)
    order = any_order(9, case.m, PLACEMENTS[placement])
    plan = PlainPlan(case, order, sharded=True, rounds=rounds, late=late)
    got = run(plan, data, tmp_path, eval_sequences=5, out=tmp_path / "out")
    expected = one_f_one_b(case.having(pp=order.num_ranks), data, tmp_path, eval_sequences=5)

    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    assert got.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
    norms = [step.grad_norm for step in expected.history]
    assert [step.grad_norm for step in got.history] == pytest.approx(norms, rel=1e-5)
    assert got.step_allocations == 0
    run(plan, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = run(plan, data, tmp_path, resume=tmp_path / "half", out=tmp_path / "rest")
    assert losses(rest) == pytest.approx(losses(got)[3:], rel=1e-7 if late else 0)
    if not late:
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "rest" / name).read_bytes()


def test_a_shard_takes_its_part_of_the_bytes(data: Path, tmp_path: Path) -> None:
    """At rest a third of each bucket, filled up to equal parts; two slots hold the largest one whole."""
    case = Case(dp=3, m=2)
    plan = PlainPlan(case, any_order(9, case.m, loop_placement(2, 1)), sharded=True).write(tmp_path / "a.plan")
    parsed = read_plan(plan.read_bytes(), "a.plan")
    regions = {(region.pp, region.kind): region.bytes for region in parsed.regions}
    pools = {(pool.pp, pool.letter): pool.bytes for pool in parsed.pools}
    for rank in range(2):
        (bucket,) = [bucket for bucket in parsed.buckets if bucket.stage == rank]

        assert bucket.elements % 48 == 0
        assert regions[rank, "params"] == regions[rank, "grads"] == 4 * bucket.elements // 3
        assert regions[rank, "moments"] == 8 * bucket.elements // 3
        assert pools[rank, "p"] == pools[rank, "q"] == 4 * bucket.elements
    first_gradients(PlainPlan(case, any_order(9, case.m, loop_placement(2, 1)), sharded=True), data, tmp_path)
