"""The automatic scheduler against every hand-made order at equal memory, on a grid of pipelines.

    .venv/bin/python tests/bench/auto_grid.py --out docs/measured/auto-grid.md

For each case (p, m, F:I:W, hop, stash limit) and each number of chunks per rank, the best hand-made order of
the registry within the limit is compared with what the automatic scheduler finds on the same placements, on
both clocks. `--every n` takes each n-th case. Everything but the time column repeats exactly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from time import monotonic

from exactmap.errors import ExactmapError
from exactmap.sim.schedules.auto import AutoResult, find_order
from exactmap.sim.schedules.metrics import measure
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes

SIZES = ((4, 8), (4, 16), (8, 16), (8, 32), (16, 32), (16, 64), (32, 64), (32, 128))
RATIOS = ((1.0, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 2.0, 1.0), (1.0, 1.2, 0.7))
HOPS = (0.0, 0.05, 0.2)
LIMITS = (0.5, 1.0, 1.5, 2.0)
OBJECTIVES = ("barrier", "period")
VERDICTS = ("better", "optimal", "equal", "worse", "alone")
UNIT_NS = 1_200_000


@dataclass(frozen=True)
class Case:
    """p, m, F:I:W of a rank, hop as a share of F, stash limit as a share of p."""

    p: int
    m: int
    ratio: tuple[float, float, float]
    hop: float
    limit: float

    @property
    def stash_limit(self) -> int:
        """Microbatches."""
        return round(self.limit * self.p)

    def times(self, chunks: int) -> WorkTimes:
        """A chunk takes its share of the rank's work."""
        work_ns = {
            (op, stage): round(share * UNIT_NS / chunks)
            for stage in range(self.p * chunks)
            for op, share in zip("FIW", self.ratio, strict=True)
        }
        return WorkTimes(work_ns, round(self.hop * UNIT_NS))

    def bubble(self, value_ns: int) -> float:
        """Idle share of a clock."""
        return 1 - self.m * sum(self.ratio) * UNIT_NS / value_ns


@dataclass(frozen=True)
class Row:
    """One comparison; `hand_ns` is 0 where no hand-made order fits."""

    case: Case
    chunks: int
    objective: str
    hand: str
    hand_ns: int
    found: AutoResult

    @property
    def verdict(self) -> str:
        """What came of it."""
        if not self.hand_ns:
            return "alone"
        if self.found.value_ns > self.hand_ns:
            return "worse"
        if self.found.value_ns < self.hand_ns:
            return "better"
        return "optimal" if self.found.value_ns == self.found.lower_bound_ns else "equal"


def cases() -> Iterator[Case]:
    """The grid; of the longer pipelines every other case, as on a chess board."""
    for size, ratio, hop, limit in product(SIZES, RATIOS, HOPS, LIMITS):
        square = RATIOS.index(ratio) + HOPS.index(hop) + LIMITS.index(limit)
        if size[0] < 16 or square % 2 == 0:
            yield Case(*size, ratio, hop, limit)


def hand_made(case: Case, chunks: int) -> dict[str, tuple[str, int]]:
    """By objective, name and value of the best order of the registry within the limit."""
    best: dict[str, tuple[str, int]] = {}
    times = case.times(chunks)
    for name, schedule in SCHEDULES.items():
        other = schedule.two_ranks or schedule.slices or schedule.recomputes or schedule.copies
        if name == "auto" or other or schedule.problem(case.p, case.m, chunks):
            continue
        try:
            metrics = measure(make_order(name, case.p, case.m, chunks), times)
        except ExactmapError as error:
            print(f"{name} {case}: {error}", file=sys.stderr)
            continue
        if metrics.peak_stash_microbatches > case.stash_limit:
            continue
        for objective, value_ns in (("barrier", metrics.makespan_ns), ("period", metrics.period_ns)):
            if objective not in best or value_ns < best[objective][1]:
                best[objective] = name, value_ns
    return best


def compare(case: Case, portfolio: bool = True, least_works: int = 80_000) -> Iterator[Row]:
    """Rows of a case: one and two chunks, both clocks."""
    for chunks in (1, 2):
        hand = hand_made(case, chunks)
        num_works = 3 * case.p * chunks * case.m
        for objective in OBJECTIVES:
            found = find_order(
                case.p,
                case.m,
                case.times(chunks),
                stash_limit=case.stash_limit,
                placement="best",
                chunks=chunks,
                objective=objective,
                budget=chunks * max(least_works, 30 * num_works),
                portfolio=portfolio,
            )
            name, value_ns = hand.get(objective, ("none fits", 0))
            yield Row(case, chunks, objective, name, value_ns, found)


def _count(rows: list[Row], verdict: str) -> int:
    return sum(row.verdict == verdict for row in rows)


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "-"


def _summary(rows: list[Row]) -> Iterator[str]:
    heads = ("limit", "chunks", "clock", "rows", *VERDICTS, "hand-made", "auto", "bound")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for limit, chunks, objective in product(LIMITS, (1, 2), OBJECTIVES):
        part = [r for r in rows if (r.case.limit, r.chunks, r.objective) == (limit, chunks, objective)]
        both = [r for r in part if r.hand_ns]
        cells = [f"{limit}p", str(chunks), objective, str(len(part))]
        cells += [str(_count(part, verdict)) for verdict in VERDICTS]
        cells += [
            _mean([r.case.bubble(r.hand_ns) for r in both]),
            _mean([r.case.bubble(r.found.value_ns) for r in both]),
            _mean([r.case.bubble(r.found.lower_bound_ns) for r in both]),
        ]
        if part:
            yield f"| {' | '.join(cells)} |"


def _cell(row: Row) -> str:
    found = row.case.bubble(row.found.value_ns)
    bound = row.case.bubble(row.found.lower_bound_ns)
    hand = f"{row.case.bubble(row.hand_ns):.4f} {row.hand}" if row.hand_ns else "none"
    mark = {"better": "**", "worse": "!"}.get(row.verdict, "")
    return f"{hand}; {mark}{found:.4f}{mark}; {bound:.4f}"


def _verdicts(rows: list[Row]) -> str:
    better, optimal, equal, worse, alone = (_count(rows, verdict) for verdict in VERDICTS)
    return (
        f"{better} strictly better, {optimal} equal and proven optimal by the bound,\n"
        f"{equal} equal, {worse} worse, {alone} where no hand-made order fits."
    )


def report(rows: list[Row], bare: list[Row], command: str, seconds: float) -> str:
    """The page."""
    num_cases, num_bare = (len({row.case for row in part}) for part in (rows, bare))
    lines = [
        "# The automatic scheduler against hand-made orders",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} on a machine with {os.cpu_count()} cores by",
        f"`{command}`: {num_cases} cases, {seconds:.0f} s. How orders are found, and what bounds them:",
        "[automatic-schedules.md](../concepts/automatic-schedules.md).",
        "",
        "A case is compared with the best hand-made order of the registry within its stash limit, with one",
        f"and with two chunks per rank, on both clocks: {len(rows)} comparisons.",
        _verdicts(rows),
        "",
        f"Without hand-made orders to start from, {num_bare} of the cases again, {len(bare)} comparisons.",
        _verdicts(bare),
        "",
        "## By limit",
        "",
        "Limits in stashed microbatches; the last columns are mean bubbles where a hand-made order fits.",
        "",
        *_summary(rows),
        "",
        "## By case",
        "",
        "Bubbles: best hand-made within the limit; automatic (bold: strictly better); bound.",
        "",
        "| p | m | F:I:W | hop | limit | v=1, barrier | v=1, period | v=2, barrier | v=2, period |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(row.case for row in rows):
        ratio = ":".join(f"{part:g}" for part in case.ratio)
        cells = [str(case.p), str(case.m), ratio, f"{case.hop:g}F", str(case.stash_limit)]
        cells += [_cell(row) for row in rows if row.case == case]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--bare-every", type=int, default=7, help="cases tried without hand-made orders too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begin_s = monotonic()
    rows: list[Row] = []
    bare: list[Row] = []
    for number, case in enumerate(list(cases())[:: options.every]):
        rows.extend(compare(case))
        if number % options.bare_every == 0:
            bare.extend(compare(case, portfolio=False))
        last = rows[-4:]
        print(
            f"{monotonic() - begin_s:6.0f} s {case}: {', '.join(row.verdict for row in last)}",
            file=sys.stderr,
            flush=True,
        )
    command = ".venv/bin/python tests/bench/auto_grid.py" + (
        f" --every {options.every}" if options.every > 1 else ""
    )
    text = report(rows, bare, command, monotonic() - begin_s)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
