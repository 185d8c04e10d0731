"""Norms that are validated in the next step: a wrong update is taken back, and nothing is learned from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from any_order import any_order
from engine_case import Case, make_data
from engine_runs import PLACEMENTS, STEPS, losses, one_f_one_b, run
from plain_plan import PlainPlan
from safetensors.numpy import load_file, save_file

from exactmap.backend_c.run import RunOptions, run_plan
from exactmap.sim.schedules.order import loop_placement

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


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
    """With a limit amid the norms some steps are repeated and some are not: "sometimes" is meant."""
    case = Case(optimizer=replace(Case().optimizer, clip=1.735))
    norms = [step.grad_norm or 0.0 for step in one_f_one_b(case, data, tmp_path).history]

    assert 0 < sum(expected_repeats(norms, 1.735)) < STEPS - 1


def overflowing_weights(case: Case, data: Path, folder: Path) -> Path:
    """Weights by which the last layer's MLP, and nothing else, gets gradients that are not finite.

    Its activations are about 1e36, of which a product with zeros keeps nothing; the head is large, and so is
    the gradient that meets them.
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


def test_copies_are_equal_where_one_looks_at_them(data: Path, tmp_path: Path) -> None:
    """Two copies are put right from different wrong updates, and made equal for a checkpoint.

    So a run that goes on from a checkpoint and one that goes on after writing it go the same way.
    """
    base = Case(tied=True, kind="gpt")
    case = base.having(optimizer=replace(base.optimizer, clip=0.1))
    plan = PlainPlan(case, any_order(5, case.m, loop_placement(4, 1)), late=True)
    run(plan, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = run(plan, data, tmp_path, resume=tmp_path / "half", out=tmp_path / "rest")
    on = run(plan, data, tmp_path, checkpoint_every=3, out=tmp_path / "on")

    assert losses(on)[3:] == losses(rest)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "on" / name).read_bytes() == (tmp_path / "rest" / name).read_bytes()
