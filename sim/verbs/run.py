"""Execute a plan file on this host's C engine, and record the execution in the words of a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from exactmap.backend_c.run import RunOptions, RunResult, StepMetrics, run_plan
from exactmap.errors import InvalidInputError
from exactmap.files import write_atomically
from exactmap.sim.plan.check import load_plan
from exactmap.sim.report.result import StepResult
from exactmap.sim.verbs.folders import make_folder
from exactmap.sim.verbs.input_kind import InputKind, refuse_others

if TYPE_CHECKING:
    from exactmap.sim.engine.summary import StepSummary
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["Execution", "run"]

DEFAULT_TRACED_STEPS = 20


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that ended: what the engine says of it, and its result document if an output folder was given."""

    run: RunResult
    result: StepResult | None
    data: Path
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, object]:
        """The execution as a JSON-ready document."""
        done = self.run
        return {
            "schema_version": 1,
            "kind": "run",
            "plan_sha256": done.plan_sha256,
            "data": str(self.data),
            "first_step": done.first_step,
            "steps": done.steps,
            "tokens_per_step": done.tokens_per_step,
            "median_step_time_ns": done.median_step_ns,
            "first_loss": done.first_loss,
            "loss": done.loss,
            "val_loss": done.val_loss,
            "skipped_steps": done.skipped_steps,
            "allocations_in_steps": done.step_allocations,
            "arena_bytes": list(done.arena_bytes),
            "interrupted": done.interrupted,
            "result": None if self.result is None else self.result.to_dict(),
            "files": [str(path) for path in self.files],
        }


def run(
    plan: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    steps: int | None = None,
    resume: str | Path | None = None,
    init: str | Path | None = None,
    checkpoint_every: int = 0,
    eval_every: int = 0,
    eval_sequences: int = 64,
    traced_steps: int = DEFAULT_TRACED_STEPS,
    timeout_s: float = 300.0,
    pin: bool = False,
    pictures: bool = True,
    on_step: Callable[[StepMetrics, int], None] | None = None,
) -> Execution:
    """Train with a plan on this host.

    Parameters
    ----------
    plan
        The plan file; it runs byte for byte as it is.
    data
        A folder that `data` made; None: the default corpus, made in ``out/data`` if it is not there yet.
    out
        Folder for the checkpoint, metrics, trace, result and pictures; None: nothing is kept.
    steps
        Steps in all; None: as the plan says.
    resume, init
        Continue a checkpoint, or start from a checkpoint's weights.
    checkpoint_every, eval_every, eval_sequences
        Steps between checkpoints and validations (0: at the end alone); sequences of a validation.
    traced_steps
        How many of the last steps are traced, each instruction of each rank.
    timeout_s
        Without progress for so long the run is stopped as hung; 0: never.
    pin
        Bind each rank to a core.
    pictures
        Whether to draw the median step.
    on_step
        Called after each step with its metrics and the number of steps in all.

    Raises
    ------
    InvalidInputError, InfeasibleError, ExecutionFailedError, ExecutionHungError, MissingRequirementError
        As the engine ends.
    """
    refuse_others(plan, "a plan", InputKind.PLAN)
    parsed, sha256 = load_plan(plan)
    folder = None if out is None else make_folder(out)
    tokens = _find_data(data, folder, parsed)
    wanted = parsed.train.steps if steps is None else steps
    options = RunOptions(
        steps=steps,
        checkpoint_every=checkpoint_every,
        eval_every=eval_every,
        eval_sequences=eval_sequences,
        resume=None if resume is None else Path(resume),
        init=None if init is None else Path(init),
        timeout_s=timeout_s,
        pin=pin,
    )
    if folder is not None:
        options = replace(
            options,
            out=folder / "checkpoint",
            trace=folder / "trace.tsv",
            trace_steps=(max(0, wanted - max(1, traced_steps)), max(0, wanted - 1)),
            metrics=folder / "metrics.jsonl",
        )

    def tell(step: StepMetrics) -> None:
        if on_step is not None:
            on_step(step, wanted)

    done = run_plan(plan, tokens, options, on_step=tell)
    if done.plan_sha256 != sha256:
        raise InvalidInputError(
            "the plan changed while it ran", where=str(plan), got=done.plan_sha256, expected=sha256
        )
    if folder is None:
        return Execution(done, None, tokens, ())
    result, files = _record(parsed, sha256, str(plan), folder, pictures=pictures)
    return Execution(done, result, tokens, files)


def _find_data(data: str | Path | None, folder: Path | None, plan: Plan) -> Path:
    """The data set to train on: the one given, or the default corpus for a model over bytes."""
    from exactmap.sim.data.dataset import BYTE_VOCAB, build_dataset

    if data is not None:
        return Path(data)
    if folder is None:
        raise InvalidInputError(
            "no data to train on", hint="give --data DIR, or --out DIR to keep the default corpus in"
        )
    if plan.model.vocab < BYTE_VOCAB:
        raise InvalidInputError(
            "the default corpus is bytes",
            got=f"a vocabulary of {plan.model.vocab}",
            expected=f"at least {BYTE_VOCAB}",
            hint="give --data DIR",
        )
    made = folder / "data"
    if not (made / "dataset.json").is_file():
        build_dataset((), made)
    return made


def _record(
    plan: Plan, sha256: str, plan_path: str, folder: Path, *, pictures: bool
) -> tuple[StepResult | None, tuple[Path, ...]]:
    """Turn the traced steps into a result: the step whose makespan is the median stands for all."""
    files = [folder / "metrics.jsonl", folder / "checkpoint"]
    path = folder / "trace.tsv"
    if not path.is_file():
        return None, tuple(files)
    from exactmap.sim.engine.trace_file import read_trace

    trace = read_trace(path)
    files.append(path)
    if not trace.steps:
        return None, tuple(files)
    step, summary = _median_step(trace)
    result = StepResult.from_summary(
        plan,
        summary,
        kind="execution",
        source="run",
        plan_sha256=sha256,
        plan_path=plan_path,
        basis=f"median of {len(trace.steps)} traced steps",
    )
    result = replace(result, trace=path.name)
    files.append(folder / "execution.json")
    write_atomically(files[-1], result.to_json())
    if pictures:
        from exactmap.sim.report.pictures import write_pictures

        files += write_pictures(plan, step, folder, f"executed, {dict(plan.made).get('schedule', 'plan')}")
    return result, tuple(files)


def _median_step(trace: Trace) -> tuple[Trace, StepSummary]:
    steps = {number: trace.of_step(number) for number in trace.steps}
    summaries = {number: step.summary() for number, step in steps.items()}
    middle = median_low((summary.makespan_ns, number) for number, summary in summaries.items())
    return steps[middle[1]], summaries[middle[1]]
