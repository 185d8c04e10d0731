"""Runs of the C engine for tests: a plan, 1F1B beside it, and the float64 reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import reference_numpy as ref
from any_order import crossed
from engine_case import Case, step_tokens
from plain_plan import PlainPlan
from safetensors.numpy import load_file

from exactmap.backend_c.run import RunOptions, RunResult, run_plan
from exactmap.sim.schedules.order import loop_placement

__all__ = ["PLACEMENTS", "STEPS", "check_first_gradients", "losses", "one_f_one_b", "run"]

STEPS = 6
PLACEMENTS = {
    "crossed2": crossed(2) + crossed(2)[::-1],
    "crossed4": crossed(4),
    "loop1": loop_placement(1, 3),
    "loop2": loop_placement(2, 2),
    "loop4": loop_placement(4, 1),
}
"""Placements of stages by name: on two ranks each, or round and round."""


def losses(result: RunResult) -> list[float | None]:
    """The loss of each step."""
    return [step.loss for step in result.history]


def run(plan: PlainPlan, data: Path, folder: Path, **options: object) -> RunResult:
    """Train some steps."""
    chosen = {"steps": STEPS, "timeout_s": 60.0, **options}
    return run_plan(plan.write(folder / "a.plan"), data, RunOptions(**chosen))  # type: ignore[arg-type]


def one_f_one_b(case: Case, data: Path, folder: Path, **options: object) -> RunResult:
    """Train as many with 1F1B: what every other plan is held against."""
    plan = case.having(schedule="1f1b").write(folder / "reference.plan")
    chosen = {"steps": STEPS, "timeout_s": 60.0, **options}
    return run_plan(plan, data, RunOptions(**chosen))  # type: ignore[arg-type]


def check_first_gradients(plan: PlainPlan, data: Path, folder: Path) -> None:
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
