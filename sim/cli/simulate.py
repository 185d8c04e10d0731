"""`exactmap simulate`: predict one step."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.errors import InvalidInputError
from exactmap.sim.cli.console import emit, facts, progress, table, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from exactmap.sim.report.result import StepResult

__all__ = ["result_tables", "simulate"]

MAX_RANK_ROWS = 8


class EngineChoice(StrEnum):
    """The engines that predict."""

    REPLAY = "replay"
    EVENTS = "events"


class MoverChoice(StrEnum):
    """The movers that a profile may name."""

    ENGINE = "engine"
    INLINE = "inline"


class ScaleChoice(StrEnum):
    """How much of the cluster is simulated."""

    SYMMETRIC = "symmetric"
    FULL = "full"


class SpreadChoice(StrEnum):
    """How flows choose among equal paths."""

    ECMP = "ecmp"
    SPRAY = "spray"


@verb
def simulate(
    path: Annotated[Path, typer.Argument(help="A plan, or a scenario (its best plan is then chosen first).")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the prediction, its trace and pictures.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a scenario's field: a.b=c; may be repeated."),
    ] = None,
    engine: Annotated[
        EngineChoice, typer.Option(help="replay is fast, events is a discrete-event simulation; they agree.")
    ] = EngineChoice.REPLAY,
    profile: Annotated[
        Path | None, typer.Option(help="Durations as JSON, instead of the plan's own cost lines.")
    ] = None,
    host: Annotated[
        Path | None,
        typer.Option("--host", help="What `exactmap calibrate` measured: price the plan with it."),
    ] = None,
    mover: Annotated[
        MoverChoice | None, typer.Option(help="Who moves bytes, instead of the profile's word.")
    ] = None,
    scale: Annotated[
        ScaleChoice,
        typer.Option(help="symmetric: equal replicas once; full: every GPU with a state of its own."),
    ] = ScaleChoice.SYMMETRIC,
    mc_steps: Annotated[int, typer.Option(help="full: steps, each with jitter of its own.")] = 1,
    seed: Annotated[int | None, typer.Option(help="full: of the state, instead of the scenario's.")] = None,
    heal: Annotated[int, typer.Option(help="full: how many of the worst components to heal.")] = 16,
    threads: Annotated[int, typer.Option(help="full: threads; they change no result.")] = 2,
    links: Annotated[
        bool, typer.Option("--links", help="Let transfers share the fabric's links; with --engine events.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="For a plan: its cluster, by name of the catalog or file.")
    ] = None,
    spread: Annotated[
        SpreadChoice, typer.Option("--spread", help="How flows choose among equal paths.")
    ] = SpreadChoice.SPRAY,
    link_seed: Annotated[int, typer.Option("--link-seed", min=0, help="Seed of ECMP's choices.")] = 0,
    paths: Annotated[
        int, typer.Option("--paths", min=1, max=64, help="Paths by ECMP that each flow is striped over.")
    ] = 1,
    pictures: Annotated[bool, typer.Option(help="Draw timeline and memory into --out.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Predict step time, bubble, exposed communication and memory of a plan."""
    if scale is ScaleChoice.FULL:
        _refuse_beside_full(
            engine=engine is not EngineChoice.REPLAY,
            host=host is not None,
            mover=mover is not None,
            links=links,
        )
        _simulate_whole(
            path,
            overrides or (),
            cluster,
            profile,
            mc_steps,
            seed,
            heal,
            threads,
            out,
            pictures,
            as_json,
            quiet,
        )
        return
    if seed is not None or mc_steps != 1:
        raise InvalidInputError("--seed and --mc-steps are for every GPU by itself", hint="add --scale full")
    if cluster is not None and not links:
        raise InvalidInputError(
            "--cluster says on which machine links are shared, or every GPU steps by itself",
            hint="add --links and --engine events, or --scale full",
        )
    from exactmap.sim.verbs.simulate import simulate as predict

    with progress("searching", quiet=quiet) as tell:
        made = predict(
            path,
            overrides or (),
            engine=engine,
            profile=profile,
            host=host,
            mover=mover,
            links=links,
            cluster=cluster,
            spread=spread,
            link_seed=link_seed,
            paths=paths,
            out=out,
            pictures=pictures,
            progress=tell,
        )
    shown: list[RenderableType] = result_tables(made.result)
    if made.links is not None:
        from exactmap.sim.cli.link_tables import link_tables

        shown += link_tables(made.links)
    shown += [f"written: {file}" for file in made.files]
    emit(made.to_dict(), shown, as_json=as_json)


def _refuse_beside_full(**given: bool) -> None:
    for name, is_given in given.items():
        if is_given:
            raise InvalidInputError(
                f"--{name} and --scale full do not go together",
                hint="every GPU by itself is stepped by replay, with the plan's own costs or --profile",
            )


def _simulate_whole(
    path: Path,
    overrides: Sequence[str],
    cluster: str | None,
    profile: Path | None,
    num_steps: int,
    seed: int | None,
    most_healed: int,
    num_threads: int,
    out: Path | None,
    pictures: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from exactmap.sim.cli.whole_cluster import whole_tables
    from exactmap.sim.verbs.whole_cluster import simulate_whole

    with progress("stepping every GPU", quiet=quiet) as tell:
        made = simulate_whole(
            path,
            overrides,
            cluster=cluster,
            profile=profile,
            num_steps=num_steps,
            seed=seed,
            most_healed=most_healed,
            num_threads=num_threads,
            out=out,
            pictures=pictures,
            progress=tell,
        )
    emit(
        made.to_dict(),
        [*whole_tables(made.result), *(f"written: {file}" for file in made.files)],
        as_json=as_json,
    )


def result_tables(result: StepResult) -> list[RenderableType]:
    """A result for people: totals, then the ranks."""
    from exactmap.sim.report.quantity import show_bytes, show_count, show_share, show_time

    band = "unknown"
    if result.band is not None:
        band = f"{100 * result.band[0]:+.0f} % to {100 * result.band[1]:+.0f} %"
    flops = result.model_flop_utilisation
    rows = [
        ("step time (barrier)", show_time(result.step_time_ns)),
        ("period (free clock)", show_time(result.period_ns)),
        ("bubble / steady bubble", f"{show_share(result.bubble)} / {show_share(result.steady_bubble)}"),
        ("tokens per second", show_count(result.tokens_per_s)),
        *([("model FLOP utilisation", show_share(flops))] if flops else []),
        ("largest arena", show_bytes(result.peak_bytes)),
        *([("error band", band)] if result.kind == "prediction" else []),
        ("priced with" if result.kind == "prediction" else "taken from", result.basis),
        ("plan sha256", result.plan_sha256),
    ]
    ranks = [
        (
            f"{rank.pp}" + (f" (dp {rank.dp})" if rank.dp else ""),
            show_time(
                sum(ns for word, ns in rank.busy_ns.items() if word in {"F", "I", "W", "B", "RC", "FB"})
            ),
            show_time(sum(rank.waiting_ns.values())),
            show_time(sum(ns for word, ns in rank.busy_ns.items() if word in {"OPT", "ZERO", "PV", "UNDO"})),
            show_bytes(rank.arena_bytes),
        )
        for rank in result.ranks
    ]
    hidden = len(ranks) - MAX_RANK_ROWS
    columns = ("rank", "passes", "waiting", "optimizer", "arena")
    out: list[RenderableType] = [
        facts(f"{result.kind} by {result.source}", rows),
        table("", columns, ranks[:MAX_RANK_ROWS]),
    ]
    if hidden > 0:
        out.append(f"(and {hidden} more ranks; --json has all)")
    return out
