"""Write the plans that the C tests run: two replicas of two pipeline ranks, four threads.

One is interleaved; the other has everything that a plan can say, lowered by `tests/c/plain_plan.py`.

Refresh (needed when the engine's memory layout or the lowering changes)::

    PYTHONPATH=src:tests/c python tests/golden/runtime/make.py
"""

from __future__ import annotations

from pathlib import Path

from any_order import any_order, crossed
from engine_case import Case
from plain_plan import PlainPlan

from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind


def four_ranks() -> None:
    """Write ``four-ranks.plan`` beside this script."""
    model = ModelConfig(
        ModelKind.LLAMA,
        layers=4,
        hidden=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        ffn=48,
        vocab=259,
        positions=32,
        tied=True,
    )
    plan = build_plan(
        model,
        schedule="interleaved-1f1b",
        pp=2,
        chunks=2,
        dp=2,
        num_microbatches=3,
        microbatch=2,
        seq=24,
        optimizer=OptimizerSettings(lr=1e-3, lr_min=1e-4, warmup=2, steps=10, clip=1.0, seed=3),
    )
    Path(__file__).with_name("four-ranks.plan").write_bytes(write_plan(plan))


def every_feature() -> None:
    """Write ``every-feature.plan``."""
    case = Case(
        layers=2,
        hidden=16,
        heads=2,
        kv_heads=1,
        head_dim=8,
        ffn=24,
        seq=12,
        dp=2,
        m=2,
        optimizer=OptimizerSettings(lr=2e-3, lr_min=2e-4, warmup=3, steps=20, clip=0.5, seed=11),
    )
    order = any_order(7, case.m, crossed(2), slices=2, split=True, braids=True, again=(0,), away=(1,))
    PlainPlan(case, order, late=True, sharded=True).write(Path(__file__).with_name("every-feature.plan"))


if __name__ == "__main__":
    four_ranks()
    every_feature()
