"""How fast the wide replay is: 64 stages x 3,437 replicas x 256 microbatches, Monte-Carlo steps, and scaling.

    python tests/bench/wide.py [--quick] [--threads 2] [--plot scaling.svg]

Each work and each message of each GPU has its own duration: a SplitMix64 counter over (GPU, instruction)
gives words, four 16-bit numbers each, and these pick quantiles of a long-tailed distribution. "Stepping" is
what is left when the same durations have been drawn once more without stepping.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.encoded import BUSY_KINDS, Ints
from exactmap.sim.engine.wide.columns import Columns
from exactmap.sim.engine.wide.replay_wide import replay_wide
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan

Words = NDArray[np.uint64]
LANES = 4  # numbers per word


class SeededTimes:
    """Durations drawn on demand: base x quantile, in integers."""

    def __init__(self, compiled: CompiledPlan, columns: Columns, seed: int = 1) -> None:
        self._columns = columns
        actors = [compiled.durations.actors[0, pp] for pp in range(compiled.plan.mesh.pp)]
        self.comp = [actor.comp_ns for actor in actors]
        self.op = [actor.op_ns for actor in actors]
        names = [channel.name for channel in compiled.plan.channels]
        found = [compiled.durations.channels.get((0, name)) for name in names]
        self.wire = [None if each is None else each.wire_ns for each in found]
        self.lat = [None if each is None else each.lat_ns for each in found]
        # Most draws are a little over 1, few are much over it: 2^16 equally likely values, times 2^20.
        share = (np.arange(2**16) + 0.5) / 2**16
        self.quantiles = np.round(2**20 * (1 + 0.02 * -np.log1p(-share))).astype(np.int64)
        self.seed = seed

    @property
    def columns(self) -> Columns:
        return self._columns

    def drawn(self, stream: int, base: Ints, numbers: Ints, columns: slice) -> Ints:
        """[numbers, columns] base durations times quantiles; a stream per rank and per channel."""
        first, num = columns.start - columns.start % LANES, columns.stop - columns.start
        num_words = -(-(columns.stop - first) // LANES)
        words = np.arange(first // LANES, first // LANES + num_words, dtype=np.uint64)
        key = (numbers.astype(np.uint64) << np.uint64(40)) + np.uint64(
            ((self.seed << 20) + stream) * 0x9E3779B97F4A7C15 % 2**64
        )
        state = mixed(key)[:, None] + words
        state *= np.uint64(0x9E3779B97F4A7C15)
        which = mixed(state).view(np.uint16)
        at = columns.start - first
        out = self.quantiles.take(which[:, at : at + num])
        out *= base[:, None]
        out >>= 20
        return out

    def works_ns(self, pp: int, indices: Ints, columns: slice) -> Ints:
        return self.drawn(pp, self.comp[pp][indices], indices, columns)

    def comp_ns(self, pp: int, first: int, last: int, columns: slice) -> Ints:
        return self.works_ns(pp, np.arange(first, last), columns)

    def op_ns(self, pp: int, index: int, columns: slice) -> Ints:
        return self.drawn(pp, self.op[pp][index : index + 1], np.array([index]), columns)[0]

    def wire_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        base = self.wire[channel]
        assert base is not None
        return self.drawn(1000 + channel, base[first:last], np.arange(first, last), columns)

    def lat_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        base = self.lat[channel]
        assert base is not None
        return np.broadcast_to(base[first:last, None], (last - first, columns.stop - columns.start))


def mixed(words: Words) -> Words:
    """SplitMix64's output function, in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def compiled_plan(pp: int, dp: int, num_microbatches: int, *, sharded: bool = False) -> CompiledPlan:
    """1F1B of a model with a layer per stage, on replicas that meet in their gradients."""
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp,
        hidden=8,
        heads=1,
        kv_heads=1,
        head_dim=8,
        ffn=8,
        vocab=16,
        positions=8,
        tied=False,
    )
    plan = build_plan(
        model,
        schedule="1f1b",
        pp=pp,
        num_microbatches=num_microbatches,
        seq=8,
        dp=dp,
        shard_params=sharded,
        split_buckets=sharded,
    )
    ranks = range(pp)
    profile = Profile(
        Mover.ENGINE,
        work_ns={
            (op, stage): ns
            for op, ns in (("F", 9 * 10**6), ("I", 9 * 10**6), ("W", 9 * 10**6))
            for stage in ranks
        },
        bucket_ns={(op, each.stage, each.index): 10**6 for each in plan.buckets for op in ("OPT", "ZERO")},
        channel={channel.name: ChannelNs(2 * 10**6, 20_000, 0) for channel in plan.channels},
        group_ns={(group.name, op.value, None, None): 5 * 10**7 for group in plan.groups for op in Op},
    )
    return compile_plan(plan, profile)


@dataclass(frozen=True)
class Case:
    """A layout."""

    pp: int
    dp: int
    num_microbatches: int
    num_steps: int = 1
    sharded: bool = False


def draw_all(compiled: CompiledPlan, times: SeededTimes, block: int = 1024, rows: int = 32) -> None:
    """What drawing all durations costs by itself, in blocks as the replay asks for them."""
    channels = {channel.name: number for number, channel in enumerate(compiled.plan.channels)}
    for low in range(0, len(times.columns), block):
        columns = slice(low, min(low + block, len(times.columns)))
        for pp in range(compiled.plan.mesh.pp):
            works = np.flatnonzero(BUSY_KINDS[compiled.durations.actors[0, pp].program.kind])
            for part in np.split(works, range(rows, len(works), rows)):
                times.works_ns(pp, part, columns)
        for _, name, num in compiled.linked.messages.channels:
            for first in range(0, num, rows):
                times.wire_ns(channels[name], first, min(first + rows, num), columns)


def measure(case: Case, threads: int, *, draw: bool) -> tuple[int, float]:
    """Print a row; gives GPUs and the processor's seconds."""
    before = time.perf_counter()
    compiled = compiled_plan(case.pp, case.dp, case.num_microbatches, sharded=case.sharded)
    made_s = time.perf_counter() - before
    times = SeededTimes(compiled, Columns(case.num_steps, dp=case.dp))
    num_works = sum(int(BUSY_KINDS[program.kind].sum()) for program in compiled.linked.programs)
    num_ops = (num_works + len(compiled.linked.messages)) * len(times.columns)
    before, cpu_before = time.perf_counter(), time.process_time()
    result = replay_wide(compiled, times, num_threads=threads)
    wall, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    drawn_s = float("nan")
    if draw:
        cpu_before = time.process_time()
        draw_all(compiled, times)
        drawn_s = time.process_time() - cpu_before
    peak_gib = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )  # of all so far: run the largest alone
    print(
        f"{case.pp:6} x {case.dp:4,} x {case.num_microbatches:4}{' sharded' if case.sharded else '':8}"
        f"{case.num_steps:6,}{case.pp * case.dp:9,}{num_ops / 1e6:9,.1f}{made_s:8.2f}{wall:8.2f}{cpu:8.2f}"
        f"{drawn_s:9.2f}{cpu - drawn_s:10.2f}{num_ops / wall / 1e6:9.1f}{peak_gib:7.2f}"
        f"{int(result.makespan_ns.max()) / 1e9:10.4f}",
        flush=True,
    )
    return case.pp * case.dp, cpu


def show(points: list[tuple[int, float]]) -> None:
    """Seconds over GPUs, both by powers of ten."""
    print("\nprocessor seconds over GPUs; linear would be 12 dots more for 4 times as many GPUs")
    least = min(seconds for _, seconds in points)
    for num_gpus, seconds in points:
        dots = 1 + round(20 * float(np.log10(seconds / least)))
        print(f"{num_gpus:9,} {'.' * dots} {seconds:.2f} s, {seconds / num_gpus * 1e6:.1f} us per GPU")


def plot(points: list[tuple[int, float]], path: str) -> None:
    """The same as a picture, with a line for linear growth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    gpus, seconds = zip(*points, strict=True)
    axes.loglog(gpus, seconds, "o-", label="wide replay")
    axes.loglog(gpus, [seconds[-1] / gpus[-1] * num for num in gpus], "--", label="linear")
    axes.set_xlabel("GPUs (64 stages, 256 microbatches)")
    axes.set_ylabel("processor seconds")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", help="a picture of seconds over GPUs, as .svg or .png")
    options = parser.parse_args()
    print(
        "stages x replicas x microbatches steps     GPUs    M ops  plan s  wall s   cpu s  drawing  stepping"
        "  M ops/s    GiB  makespan s"
    )
    sizes = (16, 64, 256) if options.quick else (16, 64, 256, 1024, 3437)
    points = [measure(Case(64, dp, 256), options.threads, draw=True) for dp in sizes]
    show(points)
    if options.plot:
        plot(points, options.plot)
    print()
    measure(Case(16, 1024, 32, num_steps=4 if options.quick else 1000), options.threads, draw=False)
    if not options.quick:
        measure(Case(64, 3437, 256, sharded=True), options.threads, draw=True)


if __name__ == "__main__":
    main()
