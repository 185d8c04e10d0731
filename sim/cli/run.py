"""`exactmap run`: execute a plan on this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, progress, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.backend_c.run import StepMetrics
    from exactmap.sim.verbs.run import Execution

__all__ = ["run"]

INTERRUPTED = 130


@verb
def run(
    plan: Annotated[Path, typer.Argument(help="A plan file; it runs unchanged.")],
    *,
    data: Annotated[
        Path | None, typer.Option(help="A folder that `exactmap data` made; none: the default corpus.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for checkpoint, metrics, trace, result, pictures."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; none: as the plan says.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this checkpoint.")] = None,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this checkpoint.")] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints; 0: at the end.")
    ] = 0,
    eval_every: Annotated[int, typer.Option(min=0, help="Steps between validations; 0: at the end.")] = 0,
    eval_sequences: Annotated[int, typer.Option(min=0, help="Sequences of a validation; 0: none.")] = 64,
    traced_steps: Annotated[int, typer.Option(min=1, help="How many of the last steps are traced.")] = 20,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds without progress until it counts as hung.")
    ] = 300.0,
    pin: Annotated[bool, typer.Option(help="Bind each rank to a core.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw timeline and memory into --out.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train with a plan on this host's C engine, and record the execution."""
    from exactmap.sim.verbs.run import run as execute

    with progress("starting", quiet=quiet) as tell:

        def on_step(step: StepMetrics, num_steps: int) -> None:
            loss = "-" if step.loss is None else f"{step.loss:.4f}"
            share = step.step / num_steps
            tell(share, f"step {step.step} of {num_steps}  loss {loss}  {step.tokens_per_s:,.0f} tokens/s")

        done = execute(
            plan,
            data=data,
            out=out,
            steps=steps,
            resume=resume,
            init=init,
            checkpoint_every=checkpoint_every,
            eval_every=eval_every,
            eval_sequences=eval_sequences,
            traced_steps=traced_steps,
            timeout_s=timeout,
            pin=pin,
            pictures=pictures,
            on_step=on_step,
        )
    emit(done.to_dict(), _shown(done), as_json=as_json)
    if done.run.interrupted:
        raise typer.Exit(INTERRUPTED)


def _shown(done: Execution) -> list[RenderableType]:
    from exactmap.sim.cli.simulate import result_tables
    from exactmap.sim.report.quantity import show_bytes, show_count, show_time

    ended = done.run

    def nats(loss: float | None) -> str:
        return "-" if loss is None else f"{loss:.4f} nats"

    speed = ended.tokens_per_step / max(ended.median_step_ns / 1e9, 1e-9)
    rows = [
        ("steps", f"{ended.first_step} to {ended.steps}" + (" (interrupted)" if ended.interrupted else "")),
        ("loss, first and last step", f"{nats(ended.first_loss)}, {nats(ended.loss)}"),
        ("validation loss", nats(ended.val_loss)),
        ("median step", f"{show_time(ended.median_step_ns)}, {show_count(speed)} tokens/s"),
        ("arenas", ", ".join(show_bytes(num) for num in ended.arena_bytes)),
        ("allocations inside steps", str(ended.step_allocations)),
        *([("steps skipped: gradients not finite", str(ended.skipped_steps))] if ended.skipped_steps else []),
        ("plan sha256", ended.plan_sha256),
    ]
    shown: list[RenderableType] = [facts("run", rows)]
    if done.result is not None:
        shown += result_tables(done.result)
    return [*shown, *(f"written: {path}" for path in done.files)]
