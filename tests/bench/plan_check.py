"""How long a large plan takes to be read, checked and written: median CPU seconds of five.

    python tests/bench/plan_check.py [--ranks 64] [--microbatches 512] [--chunks 4] [--plan FILE]
    python tests/bench/plan_check.py --walk      also the exact walk, once (it takes a while)

Without a file, an interleaved 1F1B plan is built first. CPU seconds of this one thread, so that other work on
the machine counts little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exactmap.sim.plan import Plan, PlanError, Program, check_plan, read_plan, write_plan
from exactmap.sim.plan.accept import accepts
from exactmap.sim.plan.check import check_programs
from exactmap.sim.plan.declarations import check_declarations
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind


def built(ranks: int, microbatches: int, chunks: int) -> bytes:
    """Text of an interleaved 1F1B plan."""
    model = ModelConfig(
        ModelKind.GPT,
        layers=ranks * chunks,
        hidden=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        ffn=256,
        vocab=256,
        positions=128,
        tied=False,
    )
    return write_plan(
        build_plan(
            model,
            schedule="interleaved-1f1b",
            pp=ranks,
            num_microbatches=microbatches,
            chunks=chunks,
            dp=2,
            seq=128,
        )
    )


def as_columns(plan: Plan) -> Plan:
    """The plan with its programs as columns alone."""
    programs = (Program(one.name, one.table, one.lines) for one in plan.programs)
    return replace(plan, programs=tuple(programs))


def seconds(work: Callable[[], object], turns: int = 5) -> float:
    """Median CPU seconds."""
    found: list[float] = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> int:
    """Print one line per step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--microbatches", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--walk", action="store_true")
    options = parser.parse_args()
    data = (
        options.plan.read_bytes()
        if options.plan
        else built(options.ranks, options.microbatches, options.chunks)
    )
    plan = as_columns(read_plan(data))
    objects = [one.instructions for one in as_columns(plan).programs]
    print(f"{sum(map(len, plan.programs))} instructions, {len(data)} bytes")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("read", lambda: read_plan(data)),
        ("check (all phases)", lambda: check_plan(plan)),
        ("check: declarations", lambda: check_declarations(plan, PlanError)),
        ("check: columns", lambda: accepts(plan)),
        ("write", lambda: write_plan(plan)),
        ("objects to columns", lambda: [InstructionTable.of(one) for one in objects]),
        ("columns to objects", lambda: [tuple(one.table) for one in plan.programs]),
    ]
    for name, work in steps:
        print(f"{name:24} {seconds(work):8.3f} s", flush=True)
    if options.walk:
        print(f"{'walk':24} {seconds(lambda: check_programs(plan, PlanError), 1):8.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
