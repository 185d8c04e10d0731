"""A plan trains the model that it describes: against float64, across schedules, and interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference_numpy as ref
from engine_case import Case, make_data, step_tokens
from safetensors.numpy import load_file

from exactmap.backend_c.run import RunOptions, RunResult, footprint, run_plan
from exactmap.sim.schedules.build import OptimizerSettings

STEPS = 6

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


def losses(result: RunResult) -> list[float | None]:
    return [step.loss for step in result.history]


def train(case: Case, data: Path, folder: Path, **options: object) -> RunResult:
    plan = case.write(folder / "a.plan")
    chosen = {"steps": STEPS, "timeout_s": 60.0, **options}
    return run_plan(plan, data, RunOptions(**chosen))  # type: ignore[arg-type]


def learning_rate(settings: OptimizerSettings, step: int) -> float:
    """Linear warm-up, then half a cosine."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if step >= settings.steps:
        return settings.lr_min
    done = (step - settings.warmup) / (settings.steps - settings.warmup)
    return settings.lr_min + 0.5 * (settings.lr - settings.lr_min) * (1 + np.cos(np.pi * done))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["llama", "gpt"])
def test_twenty_steps_follow_the_float64_reference(kind: str, tied: bool, data: Path, tmp_path: Path) -> None:
    """Same first weights, same tokens: each loss within 1e-5, each first gradient within 1e-4."""
    case = Case(kind=kind, tied=tied, dp=2, m=2, schedule="zb-h1")
    plan = case.write(tmp_path / "a.plan")
    run_plan(plan, data, RunOptions(steps=0, out=tmp_path / "start"))
    params = {k: v.astype(np.float64) for k, v in load_file(tmp_path / "start" / "model.safetensors").items()}
    result = run_plan(plan, data, RunOptions(steps=20, timeout_s=60.0))
    run_plan(plan, data, RunOptions(steps=1, out=tmp_path / "one"))
    moments = load_file(tmp_path / "one" / "optimizer.safetensors")

    first = {k: np.zeros_like(v) for k, v in params.items()}
    second = {k: np.zeros_like(v) for k, v in params.items()}
    settings = case.optimizer
    expected: list[float] = []
    for step in range(20):
        tokens, targets = step_tokens(case, data, step)
        total, grads, _ = ref.loss_and_gradients(case.reference, params, tokens, targets, 1.0 / tokens.size)
        expected.append(total / tokens.size)
        norm = float(np.sqrt(sum((g**2).sum() for g in grads.values())))

        assert result.history[step].grad_norm == pytest.approx(norm, rel=1e-4)
        factor = min(1.0, settings.clip / norm)
        if step == 0:
            for name, grad in grads.items():
                got = moments[f"{name}.exp_avg"].astype(np.float64) / (1 - settings.beta1) / factor
                bound = 1e-4 * max(float(np.linalg.norm(grad)), 1e-6 * norm)

                assert np.linalg.norm(got - grad) <= bound, name
        for name, grad in grads.items():
            decay = settings.decay if grad.ndim == 2 else 0.0
            rate = learning_rate(settings, step)
            g = grad * factor
            first[name] = settings.beta1 * first[name] + (1 - settings.beta1) * g
            second[name] = settings.beta2 * second[name] + (1 - settings.beta2) * g**2
            update = (first[name] / (1 - settings.beta1 ** (step + 1))) / (
                np.sqrt(second[name] / (1 - settings.beta2 ** (step + 1))) + settings.eps
            )
            params[name] = params[name] - rate * (update + decay * params[name])

    np.testing.assert_allclose(np.array(losses(result), dtype=np.float64), expected, rtol=1e-5)


SHAPES = [
    Case(schedule="gpipe", pp=1),
    Case(schedule="gpipe", pp=4),
    Case(schedule="1f1b", pp=2),
    Case(schedule="1f1b", pp=4),
    Case(schedule="interleaved-1f1b", pp=2, chunks=2),
    Case(schedule="zb-h1", pp=2),
    Case(schedule="zb-h1", pp=4),
]


def names_of(case: Case) -> str:
    return f"{case.schedule}-p{case.pp}-v{case.chunks}-m{case.m}-dp{case.dp}"


@pytest.mark.parametrize("m", [1, 3])
def test_every_schedule_gives_the_same_bits(m: int, data: Path, tmp_path: Path) -> None:
    """How a step is cut and ordered changes no bit of the loss, and of the norm at most the last digits."""
    results = [train(case.having(m=m), data, tmp_path, eval_sequences=5) for case in SHAPES]
    for case, result in zip(SHAPES, results, strict=True):
        assert losses(result) == losses(results[0]), names_of(case)
        assert result.val_loss == results[0].val_loss, names_of(case)
        norms = [step.grad_norm for step in result.history]

        assert norms == pytest.approx([step.grad_norm for step in results[0].history], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt"])
@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize("pp", [2, 4])
def test_the_loss_curve_depends_on_the_batch_alone(
    kind: str, dp: int, pp: int, data: Path, tmp_path: Path
) -> None:
    """48 sequences per step and replica, however cut into microbatches and chunks: within 1e-6."""
    curves = []
    for schedule, chunks in (("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 2), ("zb-h1", 1)):
        for m in sorted({1, pp - 1, pp, 4 * pp}):
            case = Case(kind=kind, layers=8, schedule=schedule, chunks=chunks, pp=pp, m=m, dp=dp)
            result = train(case.having(microbatch=48 // m), data, tmp_path)
            curves.append((names_of(case), losses(result)))
    for name, curve in curves:
        assert curve == pytest.approx(curves[0][1], rel=1e-6), name


def test_replicas_share_one_batch(data: Path, tmp_path: Path) -> None:
    """Two replicas with two microbatches each read what one replica with four reads."""
    alone = train(Case(m=4, dp=1), data, tmp_path)
    pair = train(Case(m=2, dp=2), data, tmp_path)

    assert losses(pair) == pytest.approx(losses(alone), rel=1e-6)
    assert pair.history[0].loss == alone.history[0].loss


def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    """Weights and moments are equal byte by byte after 3 + 3 and after 6 steps."""
    case = Case(tied=True, dp=2, m=2)
    whole = train(case, data, tmp_path, out=tmp_path / "whole")
    train(case, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = train(case, data, tmp_path, resume=tmp_path / "half", out=tmp_path / "rest")

    assert losses(rest) == losses(whole)[3:]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "rest" / name).read_bytes()


def test_a_checkpoint_continues_under_another_plan(data: Path, tmp_path: Path) -> None:
    """Names are global: a model trained on two ranks goes on on four, interleaved, or on one."""
    whole = train(Case(schedule="1f1b", pp=2), data, tmp_path)
    train(Case(schedule="1f1b", pp=2), data, tmp_path, steps=3, out=tmp_path / "half")
    for case in (Case(schedule="zb-h1", pp=4), Case(schedule="interleaved-1f1b", chunks=2), Case(pp=1)):
        rest = train(case, data, tmp_path, resume=tmp_path / "half")

        assert losses(rest) == losses(whole)[3:], names_of(case)


def test_a_checkpoint_is_replaced_as_a_whole(data: Path, tmp_path: Path) -> None:
    """Every K steps the folder is swapped; nothing temporary stays behind."""
    train(Case(), data, tmp_path, steps=5, checkpoint_every=2, out=tmp_path / "out")
    state = json.loads((tmp_path / "out" / "state.json").read_text())

    assert state["step"] == 5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_weights_start_from_a_file(data: Path, tmp_path: Path) -> None:
    """--init takes a folder or a file; training from it differs from the plan's own start."""
    train(Case(), data, tmp_path, steps=4, out=tmp_path / "first")
    own = train(Case(), data, tmp_path, steps=1)
    folder = train(Case(), data, tmp_path, steps=1, init=tmp_path / "first")
    file = train(Case(), data, tmp_path, steps=1, init=tmp_path / "first" / "model.safetensors")

    assert folder.first_loss == file.first_loss
    assert folder.first_loss is not None
    assert own.first_loss is not None
    assert folder.first_loss < own.first_loss


@pytest.mark.parametrize("case", [*SHAPES, Case(tied=True, dp=2), Case(kind="gpt", tied=True, pp=4)])
def test_the_plan_predicts_the_bytes_and_steps_take_none(case: Case, data: Path, tmp_path: Path) -> None:
    """Regions and slots of the plan are the engine's own need, and no step calls the allocator."""
    result = train(case, data, tmp_path, steps=3)
    needs = footprint(tmp_path / "a.plan")

    assert result.step_allocations == 0
    assert [need["arena_bytes"] for need in needs] == list(result.arena_bytes)


def test_a_run_without_evaluations_leaves_no_validation_loss(data: Path, tmp_path: Path) -> None:
    """Validation happens when asked for, and its loss does not depend on when."""
    none = train(Case(), data, tmp_path)
    end = train(Case(), data, tmp_path, eval_sequences=9)
    often = train(Case(), data, tmp_path, eval_sequences=9, eval_every=2)

    assert none.val_loss is None
    assert end.val_loss == often.val_loss
    assert [s.step for s in often.history if s.val_loss is not None] == [2, 4, 6]
    assert losses(often) == losses(none)
