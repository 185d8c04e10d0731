"""Tokens per second of the C engine and of PyTorch: the same model, first weights, tokens and optimizer.

    .venv/bin/python tests/bench/peers.py [--rounds 5] [--steps 25] [--out docs/measured/peers-cpu.md]

The engine runs the plan that `scenarios/cpu-host.yaml` gives; PyTorch runs `tests/peers/torch_llama.py`
(float32, eager, as many threads as the plan has ranks), with the whole batch in one pass, with a quarter, and
with the plan's microbatches. Each round starts each of them once, in turn, in a process of its own; the order
turns from round to round. A round's speed is that of its median step, without the first steps. The losses are
compared: who computes something else is not measured. Without PyTorch in .venv-peers (`make peers` makes it)
nothing is done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from exactmap.backend_c.run import RunOptions, run_plan
from exactmap.files import write_atomically
from exactmap.sim.data.dataset import build_dataset
from exactmap.sim.data.sampler import Sampler, Step
from exactmap.sim.data.tokens import open_tokens
from exactmap.sim.plan.check import load_plan
from exactmap.sim.plan.plan import Plan
from exactmap.sim.verbs.plan import plan as make_plan

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "peers" / "torch_llama.py"
DROPPED_STEPS = 5
LOSS_TOLERANCE = 1e-3
# Load average from our own two threads alone stays below this.
BUSY_LOAD = 2.2


@dataclass(frozen=True, slots=True)
class Timing:
    """One process: the median of its later steps, and all losses."""

    step_ns: float
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What all lanes do."""

    plan: Plan
    plan_path: Path
    data: Path
    folder: Path
    steps: int

    @property
    def threads(self) -> int:
        """Ranks of the plan: one thread each."""
        return self.plan.mesh.pp * self.plan.mesh.dp

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.plan.mesh.dp * self.plan.train.m * self.plan.train.microbatch

    def prepare(self) -> None:
        """Write the first weights and the tokens of every step where the peers find them."""
        run_plan(self.plan_path, self.data, RunOptions(steps=0, out=self.folder / "start"))
        train = self.plan.train
        tokens = open_tokens(self.data / "train.tok").tokens
        sampler = Sampler(len(tokens), train.seq, train.seed)
        step = Step(self.plan.mesh.dp, train.m, train.microbatch)
        windows = [sampler.window(number) for number in range(self.steps * step.num_samples)]
        rows = np.stack([tokens[w * train.seq : (w + 1) * train.seq + 1] for w in windows])
        np.save(self.folder / "tokens.npy", rows.reshape(self.steps, step.num_samples, -1))

    def engine(self) -> Timing:
        """Run the plan."""
        result = run_plan(self.plan_path, self.data, RunOptions(steps=self.steps, verify_data=False))
        times = [step.step_ns for step in result.history]
        return Timing(median(times[DROPPED_STEPS:]), tuple(step.loss or np.nan for step in result.history))

    def torch(self, python: Path, microbatch: int) -> Timing:
        """Run the peer."""
        job = {
            "weights": str(self.folder / "start" / "model.safetensors"),
            "tokens": str(self.folder / "tokens.npy"),
            "model": asdict(self.plan.model),
            "optimizer": asdict(self.plan.train),
            "microbatch": microbatch,
            "threads": self.threads,
        }
        job["model"]["norm_eps"] = self.plan.model.eps
        job["model"]["rope_theta"] = self.plan.model.theta
        path = self.folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([python, WORKER, path], stdout=subprocess.PIPE, check=True)
        told = json.loads(done.stdout)
        return Timing(median(told["step_ns"][DROPPED_STEPS:]), tuple(told["losses"]))


def measure(lanes: dict[str, Callable[[], Timing]], rounds: int) -> dict[str, list[Timing]]:
    """Run every lane once a round, in an order that turns from round to round."""
    found: dict[str, list[Timing]] = {name: [] for name in lanes}
    names = list(lanes)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(lanes[name]())
            print(
                f"round {number + 1}/{rounds}: {name}: {found[name][-1].step_ns / 1e6:.1f} ms a step",
                file=sys.stderr,
            )
    return found


def worst_loss_difference(found: dict[str, list[Timing]]) -> float:
    """Largest relative difference of any lane's loss at any step from the engine's."""
    (first, *_), *others = found.values()
    base = np.array(first.losses)
    return max(float(np.abs(np.array(t.losses) / base - 1).max()) for lane in others for t in lane)


def processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def report(work: Work, found: dict[str, list[Timing]], torch: str, load: tuple[float, float]) -> str:
    """The page: what was run, and a table."""
    train, shape = work.plan.train, work.plan.model
    tokens = work.batch * train.seq
    schedule = dict(work.plan.made).get("schedule", "?")
    names = list(found)
    ours = [timing.step_ns for timing in found[names[0]]]
    size = f"{shape.layers} layers, hidden {shape.hidden}, vocabulary {shape.vocab}"
    cut = f"{schedule}, {work.plan.mesh.pp} ranks, {train.m} microbatches"
    busy = (
        "; the machine did other work, too: read the ratio, not the speeds" if max(load) > BUSY_LOAD else ""
    )
    lines = [
        "# The C engine and PyTorch on one host",
        "",
        f"Made by `tests/bench/peers.py` on {datetime.now(UTC):%Y-%m-%d}: {processor()},",
        f"{work.threads} of {os.cpu_count()} cores, torch {torch}, Python {platform.python_version()}.",
        f"Load average (1 min) before and after: {load[0]:.1f} and {load[1]:.1f}{busy}.",
        "",
        f"Model: {shape.kind}, {size}, float32; {work.batch} sequences of {train.seq} tokens a step.",
        f"Plan: {cut} of {train.microbatch} sequences. PyTorch: plain ops, eager, fused AdamW.",
        f"{len(ours)} rounds of {work.steps} steps, each a new process; the first {DROPPED_STEPS} left out.",
        f"Losses of all differ by at most {worst_loss_difference(found):.1e} (relative).",
        "",
        "| | step, ms: median (least to most) | tokens/s | speed of exactmap-run over it (least to most) |",
        "|---|---|---|---|",
    ]
    for name in names:
        times = [timing.step_ns for timing in found[name]]
        ratios = [theirs / own for theirs, own in zip(times, ours, strict=True)]
        spread = f"{median(times) / 1e6:.1f} ({min(times) / 1e6:.1f} to {max(times) / 1e6:.1f})"
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if name != names[0] else "1"
        lines.append(f"| {name} | {spread} | {tokens / median(times) * 1e9:,.0f} | {ratio} |")
    return "\n".join([*lines, "", "JAX was not measured.", ""])


def main() -> int:
    """Measure, print the page, and write it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument(
        "--plan", type=Path, help="another plan of a Llama than the one of scenarios/cpu-host.yaml"
    )
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--out", type=Path, help="write the page there")
    arguments = parser.parse_args()
    asked = [arguments.python, "-c", "import torch; print(torch.__version__)"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        print(f"skipped: {arguments.python} has no torch; hint: make peers", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.plan or folder / "cpu.plan"
        if arguments.plan is None:
            make_plan(ROOT / "scenarios" / "cpu-host.yaml", out=path)
        data = build_dataset((), folder / "data").folder
        work = Work(load_plan(path)[0], path, data, folder, arguments.steps)
        work.prepare()
        microbatch = work.plan.train.microbatch
        lanes = {
            "exactmap-run": work.engine,
            "torch, whole batch": lambda: work.torch(arguments.python, work.batch),
            "torch, quarters of it": lambda: work.torch(arguments.python, max(1, work.batch // 4)),
            f"torch, microbatches of {microbatch}": lambda: work.torch(arguments.python, microbatch),
        }
        before = os.getloadavg()[0]
        found = measure(lanes, arguments.rounds)
        page = report(work, found, told.stdout.strip(), (before, os.getloadavg()[0]))
    print(page)
    worst = worst_loss_difference(found)
    if not worst <= LOSS_TOLERANCE:
        print(f"error: losses differ by {worst:.1e}: not the same work", file=sys.stderr)
        return 5
    if arguments.out is not None:
        write_atomically(arguments.out, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
