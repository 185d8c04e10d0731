"""How well this host is predicted after `exactmap calibrate`: 24 plans, predicted, run and compared.

Usage: python tests/bench/accuracy.py [--out FOLDER] [--record] [--quick]
Prints one table; `--record` also writes docs/measured/accuracy-DATE-Ncore.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from exactmap.sim.report.quantity import show_share, show_time
from exactmap.sim.verbs.accuracy import AccuracyReport, accuracy

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.10


def main() -> int:
    """Measure, print, record; 5 if the median error is over the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "accuracy", help="plans, traces, profile")
    parser.add_argument("--record", action="store_true", help="write the table to docs/measured")
    parser.add_argument("--quick", action="store_true", help="calibrate with fewer samples")
    args = parser.parse_args()
    report = accuracy(args.out, quick=args.quick, progress=_tell)
    print(file=sys.stderr)
    text = render(report)
    print(text)
    if args.record:
        cores = report.host.host.num_cores
        path = ROOT / "docs" / "measured" / f"accuracy-{datetime.now(UTC):%Y-%m-%d}-{cores}core.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}", file=sys.stderr)
    return 0 if report.median_error <= GOAL else 5


def render(report: AccuracyReport) -> str:
    """The report as a page of the documentation."""
    host = report.host.host
    disturbed = (
        f"- others took {show_share(report.others_share)} of the cores in the most disturbed run, "
        f"{show_share(host.others_share)} while calibrating"
    )
    summary = (
        f"**Median error {show_share(report.median_error)}** over {len(report.rows)} plans, each the median "
        f"of {report.num_steps} steps; nine of ten within {show_share(report.p90_error)}, worst "
        f"{show_share(report.worst_error)}, bias {100 * report.bias:+.1f} %. The host itself drifted by "
        f"{100 * report.drift:+.1f} % between the calibration and the end (median over passes)."
    )
    lines = [
        f"# Accuracy of the prediction on {host.num_cores} cores",
        "",
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {host.cpu}, {host.num_cores} cores",
        disturbed,
        f"- engine: {host.engine}, kernels {host.blas}",
        f"- commit: {_commit()}",
        "- command: `python tests/bench/accuracy.py --record`",
        "",
        summary,
        "",
        "| size | Kendall's tau-b | regret |",
        "|---|---|---|",
        *(
            f"| {size} | {report.tau(size):.2f} | {show_share(report.regret(size))} |"
            for size in report.sizes
        ),
        "",
        "| size | schedule | m | predicted | measured | 10 % to 90 % of steps | error |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.size} | {row.schedule} | {row.num_microbatches} | {show_time(row.predicted_ns)} | "
            f"{show_time(row.measured_ns)} | {show_time(row.low_ns)} to {show_time(row.high_ns)} | "
            f"{100 * row.error:+.1f} % |"
            for row in report.rows
        ),
    ]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    answer = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def _tell(share: float, what: str) -> None:
    print(f"\r{100 * share:3.0f} %  {what:60s}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
