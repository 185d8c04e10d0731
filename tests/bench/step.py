"""How long the closed form takes for one configuration: CPU milliseconds, first and later pricings.

    python tests/bench/step.py [--turns 3]

Packaged runs are what `exactmap validate` prices, one after the other, each as different from the last as
published runs are. The sweep is what a search does: layouts of one model on one cluster. Both are priced
once with nothing known yet, and again. The goal is 1 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

from exactmap.errors import ExactmapError
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.predict import predict_step
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.sim.workload.training import Batch, Recompute, Split

GPUS = 1024
GBS = 1536
GPT3 = ModelConfig(
    ModelKind.GPT,
    layers=96,
    hidden=12_288,
    heads=96,
    kv_heads=96,
    head_dim=128,
    ffn=49_152,
    vocab=51_200,
    positions=2048,
    tied=True,
)


def published() -> list[TrainingSetup]:
    """Every run that can be read."""
    out = []
    for row in published_and_b200():
        try:
            out.append(setup_of(row))
        except ExactmapError:
            continue
    return out


def sweep() -> list[TrainingSetup]:
    """Layouts of 175B on 1,024 A100."""
    cluster = replace(load_cluster("a100-8"), num_gpus=GPUS)
    out = []
    for tp, pp, chunks, microbatch, recompute in product(
        (1, 2, 4, 8), (1, 2, 4, 8, 16, 32), (1, 2, 3), (1, 2, 4), ("none", "full")
    ):
        dp = GPUS // (tp * pp)
        if (chunks > 1 and (pp == 1 or 96 % (pp * chunks))) or GBS % (dp * microbatch):
            continue
        split = Split(tp=tp, pp=pp, dp=dp, chunks=chunks, sequence_parallel=tp > 1, zero=1)
        batch = Batch(2048, microbatch, GBS // (dp * microbatch))
        schedule = "1F1B" if pp > 1 else "none"
        out.append(
            TrainingSetup(GPT3, split, batch, cluster, recompute=Recompute(recompute), schedule=schedule)
        )
    return out


def each_ms(setups: Sequence[TrainingSetup]) -> list[float]:
    """CPU time of each pricing."""
    out = []
    for setup in setups:
        before = time.process_time_ns()
        predict_step(setup)
        out.append((time.process_time_ns() - before) / 1e6)
    return out


def report(name: str, make: Callable[[], list[TrainingSetup]], turns: int) -> None:
    """Print mean, median and largest of the first turn, and of the best of the later ones."""
    setups = make()
    first = each_ms(setups)
    later = [min(times) for times in zip(*(each_ms(setups) for _ in range(turns)), strict=True)]
    for when, times in (("first", first), ("again", later)):
        print(
            f"{name:22s} {len(setups):6,} {when:6s} mean {statistics.mean(times):7.3f} ms   "
            f"median {statistics.median(times):7.3f} ms   most {max(times):7.3f} ms"
        )


def main() -> int:
    """Print two lines per kind of configuration."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    report("175B on 1,024 A100", sweep, args.turns)
    report("published runs", published, args.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
