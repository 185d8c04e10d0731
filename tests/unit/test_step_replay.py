"""The closed form of a step against the plan that it stands for, lowered and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap
from exactmap.sim.step.predict import predict_step
from exactmap.sim.verbs.explain_input import setup_of_plan

SCENARIO = Path(__file__).parents[2] / "scenarios" / "h100-1024.yaml"
LAYOUTS = (
    ("interleaved-1f1b", 6, 4, 16, 1, 0),
    ("1f1b", 1, 4, 16, 1, 0),
    ("zb-h1", 1, 8, 8, 1, 0),
    ("1f1b", 1, 8, 16, 2, 0),
    ("1f1b", 1, 4, 16, 1, 1),
    ("zb-h1", 1, 8, 8, 1, 1),
)


@pytest.mark.parametrize(("schedule", "chunks", "tp", "pp", "microbatch", "zero"), LAYOUTS)
def test_the_closed_form_takes_what_the_replayed_plan_takes(
    schedule: str, chunks: int, tp: int, pp: int, microbatch: int, zero: int
) -> None:
    """Kernels and collectives are shared; pipeline, gradients and optimizer are composed apart.

    What a plan does not know is taken off: the slowest of equal GPUs, what overlap costs, the host.
    """
    fixed = [
        f"parallel.{axis}={value}"
        for axis, value in (
            ("schedule", schedule),
            ("chunks", chunks),
            ("tp", tp),
            ("pp", pp),
            ("microbatch", microbatch),
            ("zero", zero),
        )
    ]
    outcome = exactmap.plan(SCENARIO, fixed, num_finalists=1)
    winner = outcome.ranking.winner

    predicted = predict_step(setup_of_plan(outcome.scenario, winner.candidate))

    unknown = ("slowest rank", "overlap slowdown", "step overhead", "host")
    alike = predicted.step_ns - sum(predicted.parts_ns.get(part, 0.0) for part in unknown)
    assert alike == pytest.approx(winner.step_ns, rel=0.01)
