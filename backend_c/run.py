"""The Python door to `exactmap-run`: train, sample, time the operators, ask for the bytes.

Each call starts the engine as a process of its own: a crash or a hang stays there, and no Python runs inside
a step. Metrics stream back through a pipe while the engine trains.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from exactmap.backend_c.locate import runner_path
from exactmap.errors import (
    CheckFailedError,
    ExactmapError,
    ExecutionFailedError,
    ExecutionHungError,
    InfeasibleError,
    InvalidInputError,
    MissingRequirementError,
)

__all__ = [
    "RunOptions",
    "RunResult",
    "StepMetrics",
    "check_support",
    "engine_version",
    "footprint",
    "run_plan",
    "sample",
    "time_ops",
]

_INTERRUPTED = 130
_ERRORS: Mapping[int, type[ExactmapError]] = MappingProxyType(
    {
        2: InvalidInputError,
        3: InvalidInputError,
        4: InfeasibleError,
        5: CheckFailedError,
        6: ExecutionFailedError,
        7: ExecutionHungError,
        8: MissingRequirementError,
    }
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to do with a plan; the defaults train for the plan's own number of steps and write nothing.

    Parameters
    ----------
    steps
        Steps in all, counted from the very first one; None: as the plan says.
    out
        Folder of the checkpoint, replaced as a whole each time.
    checkpoint_every, eval_every
        Steps between two checkpoints or validations; 0: at the end alone.
    eval_sequences
        Sequences of a validation; 0: none.
    resume, init
        Continue a checkpoint; or start anew from a checkpoint's or a safetensors file's weights.
    trace, trace_steps
        File for the times of each instruction, and the first and last step that it shows (from 0).
    metrics
        File for the metrics, as JSON lines; they come back to the caller in any case.
    timeout_s
        Without progress for so long the run is stopped as hung; 0: never.
    pin
        Bind each rank to one core.
    verify_data
        Hash the token files before the first step.
    """

    steps: int | None = None
    out: Path | None = None
    checkpoint_every: int = 0
    eval_every: int = 0
    eval_sequences: int = 0
    resume: Path | None = None
    init: Path | None = None
    trace: Path | None = None
    trace_steps: tuple[int, int] | None = None
    metrics: Path | None = None
    timeout_s: float = 300.0
    pin: bool = False
    verify_data: bool = True

    def arguments(self) -> list[str]:
        """The options as words of the command line."""
        words: list[str] = ["--timeout", repr(self.timeout_s)]
        texts = {
            "--steps": self.steps,
            "--out": self.out,
            "--resume": self.resume,
            "--init": self.init,
            "--trace": self.trace,
        }
        counts = {
            "--checkpoint-every": self.checkpoint_every,
            "--eval-every": self.eval_every,
            "--eval-sequences": self.eval_sequences,
        }
        for name, value in texts.items():
            if value is not None:
                words += [name, str(value)]
        for name, count in counts.items():
            if count:
                words += [name, str(count)]
        if self.trace_steps is not None:
            words += ["--trace-steps", f"{self.trace_steps[0]}..{self.trace_steps[1]}"]
        if self.pin:
            words.append("--pin")
        if not self.verify_data:
            words.append("--no-verify")
        return words


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What the engine says after a step; losses in nats per token, None if not finite or not known.

    `grad_norm` is taken before clipping. A `skipped` step left the weights as they were, since its gradients
    were not finite. `repeats`: how often the step was run again, because the norm of the step before came
    late and put right the weights that it had begun with; `step_ns` is the time of all its runs.
    """

    step: int
    loss: float | None
    grad_norm: float | None
    lr: float
    step_ns: int
    tokens_per_s: float
    val_loss: float | None = None
    skipped: bool = False
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and all its steps; `arena_bytes`, `host_bytes` (stashes there) per pipeline rank."""

    plan_sha256: str
    first_step: int
    steps: int
    tokens_per_step: int
    median_step_ns: int
    first_loss: float | None
    loss: float | None
    val_loss: float | None
    skipped_steps: int
    repeated_steps: int
    step_allocations: int
    arena_bytes: tuple[int, ...]
    host_bytes: tuple[int, ...]
    interrupted: bool
    history: tuple[StepMetrics, ...]


def run_plan(
    plan: str | Path,
    data: str | Path,
    options: RunOptions | None = None,
    *,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> RunResult:
    """Execute a plan file on this host.

    Parameters
    ----------
    plan
        The plan file; it is executed as it is.
    data
        Folder with ``train.tok`` and ``val.tok``.
    options
        What to do; see `RunOptions`.
    on_step
        Called after each step, while the engine goes on. A first Ctrl-C lets the engine finish its step and
        write what was asked for; the result then says `interrupted`.

    Raises
    ------
    InvalidInputError
        If the plan, the data or a checkpoint is not valid.
    InfeasibleError
        If this build does not execute the plan, or memory ran out.
    ExecutionFailedError, ExecutionHungError
        If the run ended with an error, or made no progress.
    MissingRequirementError
        If the engine is not there.
    """
    chosen = options or RunOptions()
    reader, writer = os.pipe()
    words = [str(plan), "--data", str(data), *chosen.arguments(), "--json", "--metrics", f"/dev/fd/{writer}"]
    try:
        process = subprocess.Popen(
            [runner_path(), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(writer,),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with process, os.fdopen(reader, encoding="utf-8") as lines:
        try:
            history = _follow(lines, process, chosen.metrics, on_step)
            stdout, stderr = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode not in {0, _INTERRUPTED}:
        raise _error(process.returncode, stderr)
    document: dict[str, Any] = json.loads(stdout)
    return RunResult(
        plan_sha256=document["plan_sha256"],
        first_step=document["first_step"],
        steps=document["steps"],
        tokens_per_step=document["tokens_per_step"],
        median_step_ns=document["median_step_ns"],
        first_loss=document["first_loss"],
        loss=document["loss"],
        val_loss=document["val_loss"],
        skipped_steps=document["skipped_steps"],
        repeated_steps=document["repeated_steps"],
        step_allocations=document["step_allocations"],
        arena_bytes=tuple(document["arena_bytes"]),
        host_bytes=tuple(document["host_bytes"]),
        interrupted=document["interrupted"],
        history=tuple(history),
    )


def check_support(plan: str | Path) -> None:
    """Ask the engine whether it executes a plan, without taking memory.

    Raises
    ------
    InvalidInputError
        If the plan is not valid, or its bytes differ from the engine's own (``engine.bytes``).
    InfeasibleError
        If this build cannot execute it (``engine.unsupported``).
    """
    _call([str(plan), "--check"])


def footprint(plan: str | Path) -> list[dict[str, int]]:
    """Bytes for each rank: the plan's arena and host memory; what the engine needs for regions and slots."""
    document: dict[str, Any] = json.loads(_call([str(plan), "--footprint"]))
    return list(document["ranks"])


def time_ops(shape: Mapping[str, int | str]) -> dict[str, Any]:
    """Time the engine's own operators at one shape; see `docs/reference/run.md` for the document.

    Parameters
    ----------
    shape
        Any of ``kind layers hidden heads kv_heads head_dim ffn vocab seq microbatch repeats``.
    """
    words = ["--time-ops"]
    for name, value in shape.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    document: dict[str, Any] = json.loads(_call(words))
    return document


def sample(
    checkpoint: str | Path,
    *,
    prompt: str = "",
    prompt_tokens: Sequence[int] | None = None,
    num_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> bytes:
    """Continue a prompt with a checkpoint.

    Returns
    -------
    bytes
        The continuation of `prompt` as bytes; with `prompt_tokens` one decimal token a line instead.
    """
    words = ["--sample", "--init", str(checkpoint), "--tokens", str(num_tokens)]
    words += ["--temperature", repr(temperature), "--top-k", str(top_k), "--seed", str(seed)]
    if prompt_tokens is not None:
        words += ["--prompt-tokens", ",".join(map(str, prompt_tokens))]
    else:
        words += [f"--prompt={prompt}"]
    return _call(words)


def engine_version() -> str:
    """The version of the engine, e.g. ``exactmap-run 0.1.0``."""
    return _call(["--version"]).decode().strip()


def _call(words: Sequence[str]) -> bytes:
    done = subprocess.run([runner_path(), *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise _error(done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _follow(
    lines: TextIO,
    process: subprocess.Popen[str],
    copy: Path | None,
    on_step: Callable[[StepMetrics], None] | None,
) -> list[StepMetrics]:
    """Read metrics until the engine closes them; the first Ctrl-C is passed on to it."""
    history: list[StepMetrics] = []
    forwarded = False
    target = None if copy is None else copy.open("w", encoding="utf-8")
    try:
        while True:
            try:
                line = lines.readline()
                if not line:
                    return history
                if target is not None:
                    target.write(line)
                record: dict[str, Any] = json.loads(line)
                if record.pop("record") == "step":
                    record.setdefault("grad_norm", None)
                    history.append(StepMetrics(**record))
                    if on_step is not None:
                        on_step(history[-1])
            except KeyboardInterrupt:
                if forwarded:
                    raise
                forwarded = True
                process.send_signal(signal.SIGINT)
    finally:
        if target is not None:
            target.close()


def _error(code: int, stderr: str) -> ExactmapError:
    """Give the engine's message the class of its exit code."""
    lines = [line for line in stderr.strip().splitlines() if line]
    hint = None
    if lines and lines[-1].startswith("hint: "):
        hint = lines.pop().removeprefix("hint: ")
    start = next((i for i, line in enumerate(lines) if line.startswith("error: ")), None)
    if start is None:
        what = f"the engine ended with code {code}" if code >= 0 else f"signal {-code} killed the engine"
        return ExecutionFailedError(what, got="\n".join(lines[-5:]) or None)
    what = "\n".join(lines[start:]).removeprefix("error: ")
    return _ERRORS.get(code, ExecutionFailedError)(what, hint=hint)
