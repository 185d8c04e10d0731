"""Write the plan that the C tests run: two replicas of a two-rank interleaved pipeline, four threads.

Refresh (needed when the engine's memory layout or the lowering changes)::

    PYTHONPATH=src python tests/golden/runtime/make.py
"""

from __future__ import annotations

from pathlib import Path

from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind


def main() -> None:
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


if __name__ == "__main__":
    main()
