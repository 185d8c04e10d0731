"""How long the largest plans take: order, walk, lowering, checks of 64 ranks x 512 microbatches x 4 chunks.

Usage: python tests/bench/schedule_scale.py [--goal SECONDS]
Prints one table; 5 if making, lowering and checking the largest plan takes longer than the goal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from exactmap.sim.plan.check import check_plan
from exactmap.sim.plan.plan import MeshDims, PlanTrain, Precision
from exactmap.sim.schedules.build import plan_model
from exactmap.sim.schedules.lowering import lower
from exactmap.sim.schedules.partition import stages_of
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.sizes import size_stage
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.workload.model import ModelConfig, ModelKind

SIZES = (("interleaved-1f1b", 8, 64, 2), ("interleaved-1f1b", 64, 256, 4), ("interleaved-1f1b", 64, 512, 4))
GOAL_S = 5.0
SEQ = 16

T = TypeVar("T")


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What an action gives, and its seconds of processor time."""
    before = time.process_time()
    result = action()
    return result, time.process_time() - before


def measure(name: str, num_ranks: int, num_microbatches: int, num_chunks: int) -> tuple[int, list[float]]:
    """Instructions of one plan; seconds for its order, the walk, lowering alone, and the checks."""
    num_stages = num_ranks * num_chunks
    model = ModelConfig(
        ModelKind.GPT,
        layers=num_stages,
        hidden=32,
        heads=4,
        kv_heads=4,
        head_dim=8,
        ffn=64,
        vocab=259,
        positions=SEQ,
        tied=False,
    )
    stages = stages_of((1,) * num_stages)
    sizes = [size_stage(model, stage, 1, SEQ, Precision()) for stage in stages]
    train = PlanTrain(1, num_microbatches, SEQ, 1, "adamw", 1e-3, 0.0, 0, 10, 0.9, 0.95, 1e-8, 0.1, 1.0, 0)
    order, order_s = timed(lambda: make_order(name, num_ranks, num_microbatches, num_chunks))
    _, walk_s = timed(lambda: walk(order, WorkTimes.unit(num_stages)))
    plan, lower_s = timed(
        lambda: lower(
            order,
            model=plan_model(model),
            train=train,
            mesh=MeshDims(1, 1, 1, num_ranks, 1),
            stages=stages,
            sizes=sizes,
        )
    )
    _, check_s = timed(lambda: check_plan(plan))
    return sum(map(len, plan.programs)), [order_s, walk_s, max(lower_s - walk_s, 0.0), check_s]


def main() -> int:
    """Measure and print; 5 if the largest plan takes longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--goal", type=float, default=GOAL_S, help="seconds for the largest plan")
    args = parser.parse_args()
    print("schedule           ranks microbatches chunks instructions  order  walk  lower  check  sum [s]")
    total_s = 0.0
    for name, num_ranks, num_microbatches, num_chunks in SIZES:
        num_instructions, seconds = measure(name, num_ranks, num_microbatches, num_chunks)
        total_s = sum(seconds)
        columns = "  ".join(f"{value:5.2f}" for value in (*seconds, total_s))
        print(f"{name:18} {num_ranks:5} {num_microbatches:12} {num_chunks:6} {num_instructions:12} {columns}")
    return 0 if total_s <= args.goal else 5


if __name__ == "__main__":
    raise SystemExit(main())
