"""The planner's closed form: its rate, its optimum against brute force, its times against replayed plans.

    python tests/bench/planner.py [--replayed 500] [--out docs/measured/planner.md]

One space of 175B on 1,024 H100 is priced in arrays and, candidate by candidate, by brute force. Candidates
drawn from those that fit are lowered, checked and replayed as whole plans. The rate is that of the largest
scenario, 1.1 million layouts, factors included.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from exactmap.files import write_atomically
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.planner.candidate import Candidate, Rejection, SearchSpace, enumerate_candidates
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.planner.search import finish
from exactmap.sim.planner.survey import survey
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.verbs.plan import PLAN_TYPES, space_of

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def load(name: str) -> tuple[SearchSpace, Estimator]:
    """Space and estimator of a scenario, with nothing known yet."""
    loaded = load_scenario(SCENARIOS / name)
    formats = find_formats(loaded.training.precision)
    pricing = ClusterPricing(loaded.cluster, formats)
    estimator = Estimator(
        loaded.model, loaded.training.sequence, formats, pricing, loaded.memory_budget_bytes
    )
    return space_of(loaded), estimator


def brute_force(space: SearchSpace, estimator: Estimator) -> tuple[int, list[tuple[float, Candidate]]]:
    """How many candidates there are, and those that fit, priced one by one, best first."""
    fit, num = [], 0
    for found in enumerate_candidates(space):
        num += 1
        priced = found if isinstance(found, Rejection) else estimator.price(found)
        if isinstance(priced, Estimate):
            fit.append((float(priced.step_ns), priced.candidate))
    return num, sorted(fit)


def replayed(
    kept: list[tuple[float, Candidate]], estimator: Estimator, num: int
) -> list[tuple[float, int, Candidate, float]]:
    """Closed form and replay in ns, and memory over the arena's, of candidates drawn with a fixed seed."""
    out = []
    for form_ns, candidate in random.Random(1).sample(kept, len(kept)):
        if len(out) == num:
            break
        priced = estimator.price(candidate)
        assert isinstance(priced, Estimate)
        plan = finish(priced, estimator, OptimizerSettings(), PLAN_TYPES["bf16"], ())
        if not isinstance(plan, Rejection):
            out.append((form_ns, plan.step_ns, candidate, priced.memory.total_bytes / plan.peak_bytes))
    return out


def tau(pairs: list[tuple[float, int]]) -> float:
    """Kendall's tau: pairs in the same order less those in the other, over all."""
    signs = [(a - c) * (b - d) for (a, b), (c, d) in combinations(pairs, 2)]
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(signs)


def report(num_replayed: int) -> str:
    """All measurements as a page."""
    started = time.process_time()
    space, estimator = load("gpt3-175b-1024.yaml")
    found = survey(space, estimator)
    seconds = time.process_time() - started
    num = found.num_priced + found.num_refused
    rate = f"{num:,} layouts of 175B on 1,024 A100 priced in {seconds:.1f} s with all factors"
    lines = [
        "# The planner's closed form",
        "",
        "`python tests/bench/planner.py --out docs/measured/planner.md`; CPU seconds of one core.",
        "",
        f"- {rate}: {num / seconds:,.0f} a second; {found.num_priced:,} fit.",
    ]
    narrow, estimator = load("h100-1024.yaml")
    space = replace(
        narrow,
        tp=(1, 2, 3, 4, 6, 8),
        cp=(1, 2, 4),
        pp=(1, 2, 4, 6, 8, 12, 16, 24, 32, 48),
        chunks=(1, 2, 3, 4, 6, 8, 12),
        microbatch=(1, 2, 3, 4),
        schedules=CLOSED_FORMS,
        zero=(0, 1),
        all_replicas=True,
    )
    started = time.process_time()
    num, one_by_one = brute_force(space, estimator)
    slow = time.process_time() - started
    started = time.process_time()
    found = survey(space, estimator, num_kept=num)
    fast = time.process_time() - started
    worst = max(
        abs(form_ns / one_ns - 1) for (form_ns, _), (one_ns, _) in zip(found.kept, one_by_one, strict=True)
    )
    best = found.kept[0][1]
    same = "the same best" if best == one_by_one[0][1] else f"another best ({one_by_one[0][1].label})"
    times = f"times equal within {worst:.1e}; {fast:.2f} s in arrays, {slow:.2f} s one by one"
    both = f"{num:,} layouts on H100 in arrays and one by one: the same {len(one_by_one):,} fit"
    lines.append(f"- {both}, {same} ({best.label}), {times}.")
    runs = replayed(found.kept, estimator, num_replayed)
    off = [form / plan - 1 for form, plan, _, _ in runs]
    memory = [share for *_, share in runs]
    gaps = sorted(map(abs, off))
    ninth, order = gaps[int(0.9 * len(gaps))], tau([(form, plan) for form, plan, _, _ in runs])
    spread = (
        f"median difference {100 * statistics.median(gaps):.2f} %, nine of ten within {100 * ninth:.1f} %"
    )
    held = (
        f"{min(memory):.2f} to {max(memory):.2f} of the plan's arena, median {statistics.median(memory):.3f}"
    )
    drawn = f"{len(runs)} of them, drawn at random, against their whole plans replayed"
    ranked = f"worst {100 * gaps[-1]:.1f} %; Kendall's tau {order:.3f}"
    lines += [
        f"- {drawn}: {spread}, {ranked}; estimated memory {held}.",
        "",
        "| schedule | plans | median | lowest | highest |",
        "|---|---|---|---|---|",
    ]
    for name in CLOSED_FORMS:
        mine = [form / plan - 1 for form, plan, each, _ in runs if each.schedule == name]
        if mine:
            shown = (f"{100 * each:+.2f} %" for each in (statistics.median(mine), min(mine), max(mine)))
            lines.append(f"| {name} | {len(mine)} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print; write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replayed", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    page = report(options.replayed)
    print(page, end="")
    if options.out is not None:
        write_atomically(options.out, page.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
