"""How fast the engines are: encode, price, compile, replay, replay many, events, on interleaved 1F1B plans.

    python tests/bench/engines.py [--repeats 5] [--largest 1300000]

Times are CPU seconds of one core, medians over the repeats, so other work on the machine disturbs them
little. The first line says how long a loop of ten million additions takes, to compare machines by.
"""

from __future__ import annotations

import argparse
import gc
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.encoded import encode
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.perturb import jitter
from exactmap.sim.engine.replay import replay, replay_many, replay_times
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.plan.plan import Plan

SIZES = ((16, 104, 4), (64, 256, 4), (64, 512, 4))  # ranks, microbatches, chunks
NUM_DRAWS = 16


def plan_of(pp: int, num_microbatches: int, chunks: int) -> Plan:
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp * chunks,
        hidden=8,
        heads=1,
        kv_heads=1,
        head_dim=8,
        ffn=8,
        vocab=16,
        positions=8,
        tied=False,
    )
    return build_plan(
        model, schedule="interleaved-1f1b", pp=pp, num_microbatches=num_microbatches, seq=8, chunks=chunks
    )


def profile_of(plan: Plan, mover: Mover) -> Profile:
    """Stages differ a little, messages take time on the wire and on their way."""
    stages = range(len(plan.stages))
    return Profile(
        mover,
        work_ns={(op, stage): 1000 + (stage if op == "F" else -100) for op in "FIW" for stage in stages},
        bucket_ns={("OPT", bucket.stage, bucket.index): 50 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(30, 50) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 40 for group in plan.groups for op in ("AR", "NORM")},
    )


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median CPU and wall seconds."""
    cpu: list[float] = []
    wall: list[float] = []
    for _ in range(repeats):
        gc.collect()
        cpu_start, wall_start = process_time(), perf_counter()
        work()
        cpu.append(process_time() - cpu_start)
        wall.append(perf_counter() - wall_start)
    return median(cpu), median(wall)


def loop() -> int:
    total = 0
    for number in range(10_000_000):
        total += number
    return total


def measure(plan: Plan, mover: Mover, repeats: int) -> None:
    profile = profile_of(plan, mover)
    durations = resolve(plan, profile)
    compiled = compile_plan(plan, durations)
    draws = [jitter(durations, 50, seed) for seed in range(NUM_DRAWS)]
    assert replay(compiled).same_times(simulate_events(plan, durations))
    steps: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("encode", lambda: [encode(plan, program) for program in plan.programs], 1),
        ("resolve, encoded", lambda: compiled.price(profile), 1),
        ("compile", lambda: compile_plan(plan, durations), 1),
        ("replay, times", lambda: replay_times(compiled), 1),
        ("replay, trace", lambda: replay(compiled), 1),
        (f"replay, {NUM_DRAWS} draws, each", lambda: replay_many(compiled, draws), NUM_DRAWS),
        ("all of it once", lambda: replay(plan, resolve(plan, profile)), 1),
        ("events", lambda: simulate_events(plan, durations), 1),
    )
    for name, work, share in steps:
        cpu, wall = (value / share for value in seconds(work, repeats))
        speed = compiled.num_instructions / cpu / 1e6
        print(f"  {name:24} {cpu:7.3f} s  (wall {wall:7.3f} s)  {speed:7.2f} M/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest", type=int, default=1_400_000, help="leave out plans of more instructions")
    options = parser.parse_args()
    print(f"ten million additions: {seconds(loop, options.repeats)[0]:.2f} s")
    for size in SIZES:
        plan = plan_of(*size)
        num = sum(len(program) for program in plan.programs)
        for mover in Mover if num <= options.largest else ():
            print(f"\np={size[0]} m={size[1]} v={size[2]}: {num} instructions, mover {mover.value}")
            measure(plan, mover, options.repeats)


if __name__ == "__main__":
    main()
