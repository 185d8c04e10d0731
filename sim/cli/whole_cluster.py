"""Tables of a simulation of every GPU, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exactmap.sim.cli.console import facts, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.report.distribution import Distribution
    from exactmap.sim.report.whole_cluster import WholeResult

__all__ = ["whole_tables"]

MAX_ROWS = 6
MAX_NAMES = 3


def whole_tables(result: WholeResult) -> list[RenderableType]:
    """Totals, then who was waited for, then what healing buys."""
    from exactmap.sim.report.quantity import show_count, show_share, show_time

    run = result.run
    rows = [
        (
            "GPUs",
            f"{result.num_gpus_used:,} of {result.num_gpus_installed:,}, {result.num_replicas:,} replicas",
        ),
        ("step if all were alike", _exactly(result.nominal_ns)),
        ("step", _spread(result.step)),
        ("longer than nominal", f"{100 * result.slowdown:+.2f} %"),
        ("replicas alone", _spread(result.replica)),
        ("waiting for the latest", show_share(result.waiting_share)),
        ("state", f"seed {result.seed}"),
        *([("slow, but without ranks", _some(result.without_ranks))] if result.without_ranks else []),
        ("priced with", result.basis),
        ("plan sha256", result.plan_sha256),
    ]
    out: list[RenderableType] = [facts(f"every GPU of {result.cluster}", rows)]
    causes = [(cause, show_time(ns)) for cause, ns in result.by_cause.items()]
    num = len(result.blames)
    blamed = [
        (
            str(entry.component),
            show_time(entry.total_ns),
            show_time(entry.lasting_ns),
            *((f"{entry.num_steps}",) if num > 1 else ()),
            _gpu_time(entry.idle_gpu_s),
        )
        for entry in result.by_component[:MAX_ROWS]
        if entry.total_ns > 0
    ]
    if blamed:
        title = f"Who was waited for: mean over {num} steps" if num > 1 else "Who was waited for"
        steps = ("steps",) if num > 1 else ()
        out.append(table(title, ("component", "excess", "lasting", *steps, "others idle"), blamed))
        places = [
            (str(entry.component), show_time(entry.total_ns))
            for entries in (result.by_host, result.by_rack, result.by_leaf)
            for entry in entries[:2]
            if entry.total_ns > 0
        ]
        if result.shorter_path_ns:
            causes.append(("less: a path shorter by", show_time(-result.shorter_path_ns)))
        out.append(table("Where, and in what", ("place or cause", "excess"), [*places, *causes]))
    worst = result.worst()
    if result.healed:
        before = worst[0][1]
        gained = [
            (
                f"{num}",
                str(result.healed[num - 1].component) if num else "none",
                _exactly(step_ns),
                f"{100 * (step_ns / before - 1):+.2f} %",
            )
            for num, step_ns in worst
        ]
        out.append(
            table("Healing the worst, first step", ("healed", "the last of them", "step", "gain"), gained)
        )
    ops = run.num_works + run.num_messages
    seconds = [
        ("works and messages", f"{show_count(ops)}, {show_count(run.ops_per_s)} per second"),
        ("stepping", f"{run.stepping_s:.1f} s on {run.num_threads} threads"),
        ("planning, blame, healing", f"{run.plan_s:.1f} s, {run.blame_s:.1f} s, {run.healing_s:.1f} s"),
    ]
    out.append(facts("This simulation", seconds))
    return out


def _spread(times: Distribution) -> str:
    if times.num == 1:
        return _exactly(times.mean_ns)
    quantiles = ", ".join(
        f"{name} {_exactly(ns)}"
        for name, ns in (
            ("p50", times.p50_ns),
            ("p90", times.p90_ns),
            ("p99", times.p99_ns),
            ("max", times.max_ns),
        )
    )
    return f"{_exactly(times.mean_ns)} +- {100 * times.variation:.2f} %; {quantiles}"


def _some(names: tuple[str, ...]) -> str:
    """The first of many names."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _gpu_time(gpu_s: float) -> str:
    """Time of many GPUs: three digits."""
    for scale, unit in ((3600.0, "h"), (1.0, "s")):
        if gpu_s >= scale:
            return f"{gpu_s / scale:,.{max(0, 3 - len(f'{gpu_s / scale:.0f}'))}f} GPU-{unit}"
    return f"{1000 * gpu_s:.0f} GPU-ms"


def _exactly(ns: int) -> str:
    """A time with five digits: what a single component changes is small."""
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= scale:
            whole = len(f"{ns // int(scale)}")
            return f"{ns / scale:,.{max(0, 5 - whole)}f} {unit}"
    return f"{ns} ns"
