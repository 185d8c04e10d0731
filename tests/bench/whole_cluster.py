"""How fast a whole cluster is simulated, from the command to the tables: the two bars, and how it scales.

    python tests/bench/whole_cluster.py [--quick] [--threads 2] [--plot
    docs/pictures/whole-cluster-scaling.png]

Each case runs `exactmap simulate --scale full` in a process of its own, so seconds and peak memory are those
of a user: reading, planning, compiling, the state of every component, a duration for each work and message of
each GPU, all steps, blame, healing. The bars are 20 s and 4 GiB for a step of 64 stages x 3,437 replicas x
256 microbatches, and 60 s for 1,000 steps of 16 stages x 1,024 replicas x 32 microbatches, both on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "gb300-220k.yaml"
PER_RACK = 72


@dataclass(frozen=True)
class Case:
    """A layout, pinned."""

    name: str
    pp: int
    dp: int
    num_microbatches: int
    model: str
    sequence: int
    num_steps: int = 1
    bar_s: float = 0.0

    @property
    def num_gpus(self) -> int:
        return self.pp * self.dp

    def command(self, threads: int) -> list[str]:
        # Whole racks, and never more than the 220,000 GPUs of the scenario.
        racks = -(-self.num_gpus // PER_RACK) * PER_RACK
        fields = {
            "cluster.num_gpus": min(racks, 220_000),
            "cluster.used_per_domain": PER_RACK,
            "model": self.model,
            "training.sequence": self.sequence,
            "training.batch": f"{self.dp * self.num_microbatches} sequences",
            "parallel.tp": 1,
            "parallel.cp": 1,
            "parallel.pp": self.pp,
            "parallel.dp": self.dp,
            "parallel.chunks": 1,
            "parallel.microbatch": 1,
            "parallel.schedule": "1f1b",
        }
        options = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
        program = "from exactmap.sim.cli.main import main; main()"
        run = [sys.executable, "-c", program, "simulate", str(SCENARIO), "--scale", "full", "--json"]
        return [*run, "--mc-steps", str(self.num_steps), "--threads", str(threads), *options]


@dataclass(frozen=True)
class Measured:
    """What one run took."""

    case: Case
    wall_s: float
    cpu_s: float
    peak_bytes: int
    stepping_s: float
    num_ops: int


def measure(case: Case, threads: int) -> Measured:
    """Run one case."""
    start = time.perf_counter()
    process = subprocess.Popen(case.command(threads), stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{case.name}: exit code {process.returncode}")
    run = json.loads(output)["run"]
    return Measured(
        case,
        wall_s,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * 1024,
        run["stepping_s"],
        run["num_works"] + run["num_messages"],
    )


def show(measured: Measured) -> None:
    """Print one row of the table."""
    case = measured.case
    bar = f"bar {case.bar_s:.0f} s" if case.bar_s else ""
    rate = measured.num_ops / measured.stepping_s / 1e6 if measured.stepping_s else 0.0
    print(
        f"| {case.name} | {case.num_gpus:,} | {case.num_steps:,} | {measured.num_ops / 1e6:,.0f} M "
        f"| {measured.wall_s:.1f} s | {measured.cpu_s:.1f} s | {measured.stepping_s:.1f} s | {rate:,.0f} M/s "
        f"| {measured.peak_bytes / 2**30:.2f} GiB | {bar} |",
        flush=True,
    )


def plot(rows: list[Measured], path: Path) -> None:
    """CPU seconds over GPUs, beside a line of slope one."""
    from matplotlib.figure import Figure

    from exactmap.sim.report.pictures import save_figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    gpus = [row.case.num_gpus for row in rows]
    seconds = [row.cpu_s for row in rows]
    axes.loglog(gpus, seconds, "o-", color="#0072B2", label="whole command, CPU seconds")
    axes.loglog(
        gpus, [row.stepping_s for row in rows], "s-", color="#D55E00", label="stepping alone, 2 threads, wall"
    )
    line = [seconds[-1] * count / gpus[-1] for count in gpus]
    axes.loglog(gpus, line, "--", color="#B0B0B0", label="in proportion to GPUs")
    axes.set_xlabel("GPUs: 64 stages, 256 microbatches, more replicas")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    axes.grid(visible=True, which="both", alpha=0.25)
    save_figure(figure, path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print("| case | GPUs | steps | ops | wall | CPU | stepping | ops | peak | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    replicas = (16, 64, 256) if options.quick else (16, 64, 256, 1024, 3437)
    rows = []
    for dp in replicas:
        bar_s = 20.0 if dp == 3437 else 0.0
        case = Case(f"64 x {dp:,} x 256", 64, dp, 256, "llama3-405b", 2048, bar_s=bar_s)
        rows.append(measure(case, options.threads))
        show(rows[-1])
    steps = 20 if options.quick else 1000
    bar_s = 0.0 if options.quick else 60.0
    show(measure(Case("16 x 1,024 x 32", 16, 1024, 32, "llama3-70b", 4096, steps, bar_s), options.threads))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
