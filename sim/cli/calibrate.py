"""`exactmap calibrate`: measure this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, note, progress, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.cost.host import HostProfile

__all__ = ["calibrate"]


@verb
def calibrate(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the hardware profile here.")] = Path(
        "hardware-profile.json"
    ),
    plans: Annotated[
        list[Path] | None, typer.Option("--plan", help="Measure what this plan's ranks do; may be repeated.")
    ] = None,
    scenarios: Annotated[
        list[Path] | None,
        typer.Option("--scenario", help="Measure what plans of this scenario do; may be repeated."),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=2, help="Ranks at work at the same time; none: the cores of this host.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the time, fewer samples.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Time the engine's own operators on this host, for predictions of what runs here."""
    from exactmap.sim.verbs.calibrate import calibrate as measure
    from exactmap.sim.verbs.host_load import QUIET_SHARE

    with progress("calibrating", quiet=quiet) as tell:
        profile = measure(
            out, plans=plans or (), scenarios=scenarios or (), ranks=ranks, quick=quick, progress=tell
        )
    if profile.host.others_share > QUIET_SHARE:
        share = f"{100 * profile.host.others_share:.0f} %"
        note(f"note: others took {share} of the cores meanwhile: calibrate again when the host is quiet")
    emit(profile.model_dump(mode="json"), _shown(profile, out), as_json=as_json)


def _shown(profile: HostProfile, out: Path) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_bytes, show_time

    shapes: dict[tuple[str, ...], dict[str, int]] = {}
    for entry in profile.passes:
        key = (f"{entry.kind} {entry.hidden}/{entry.ffn}, {entry.microbatch} x {entry.seq}", entry.part)
        shapes.setdefault(key, {})[entry.step] = entry.ns
    rows = [
        (f"{shape}: {part}", *(show_time(times[step]) if step in times else "-" for step in "FIWB"))
        for (shape, part), times in shapes.items()
    ]
    largest = profile.copies[-1]
    between = [
        ("hand-over, receiver awake", show_time(profile.awake.post_ns + profile.awake.wake_ns)),
        ("hand-over, receiver asleep", show_time(profile.asleep.post_ns + profile.asleep.wake_ns)),
        (f"copy of {show_bytes(largest.bytes)}", show_time(largest.ns)),
        *(
            (f"sum of {show_bytes(total.bytes)} over {total.ranks} ranks", show_time(total.ns))
            for total in profile.all_reduce[-1:]
        ),
        ("one instruction", show_time(profile.instruction_ns)),
    ]
    host = f"{profile.host.cpu}, {profile.host.num_cores} cores, {profile.host.blas}"
    return [
        f"{host}; {profile.ranks_at_once} ranks at work at a time",
        table("", ("passes: width/ffn, sequences x tokens", "F", "I", "W", "B"), rows),
        table("", ("between ranks", "time"), between),
        f"profile: {out}",
    ]
