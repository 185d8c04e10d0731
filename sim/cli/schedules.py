"""`exactmap schedules`: all schedules beside each other, at the numbers of a run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.errors import InfeasibleError
from exactmap.sim.cli.console import UNLIMITED_WIDTH, emit, note, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.schedules import Gallery, GalleryRow

__all__ = ["schedules"]

COLUMNS = ("schedule", "step", "bubble", "period", "steady", "stash", "messages", "over bound")
CHOICES = (tuple(range(8)), tuple(range(7)), (0, 1, 2, 5, 6), (0, 1, 2, 5), (0, 1, 2))
"""Columns that are shown, the first choice that fits."""


class TorchForm(StrEnum):
    """Forms of PyTorch's schedule CSV."""

    COMPUTE_ONLY = "compute_only"
    COMPUTE_COMMS = "compute_comms"


@verb
def schedules(
    names: Annotated[list[str] | None, typer.Argument(help="Which schedules; all if left out.")] = None,
    *,
    p: Annotated[int, typer.Option("--p", help="Pipeline ranks.")] = 4,
    m: Annotated[int, typer.Option("--m", help="Microbatches of a step.")] = 8,
    v: Annotated[int, typer.Option("--v", help="Chunks per rank, where a schedule may have several.")] = 2,
    f: Annotated[str, typer.Option("--f", help="Forward pass of a rank's layers, e.g. 18.522ms.")] = "1ms",
    i: Annotated[str, typer.Option("--i", help="Input gradient of a rank's layers.")] = "1ms",
    w: Annotated[str, typer.Option("--w", help="Weight gradient of a rank's layers.")] = "1ms",
    hop: Annotated[str, typer.Option("--hop", help="Latency of a message between ranks.")] = "0ns",
    copy: Annotated[str, typer.Option("--copy", help="Copy of a rank's stash to the host, or back.")] = "0ns",
    slices: Annotated[int, typer.Option(help="Slices of a sequence, where a schedule cuts them.")] = 4,
    group_size: Annotated[int, typer.Option(help="Microbatches per group of interleaved orders; 0: p.")] = 0,
    braid_share: Annotated[float, typer.Option(help="What a braid takes of the sum of its works.")] = 1.0,
    stash_limit: Annotated[int, typer.Option(help="Microbatches that a rank may stash; 0: no limit.")] = 0,
    layers: Annotated[int, typer.Option(help="Layers of the model; 0: all stages are equal.")] = 0,
    embedding_layers: Annotated[float, typer.Option(help="What the embedding costs, in layers.")] = 0.0,
    head_layers: Annotated[float, typer.Option(help="What the head costs, in layers.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A PNG of all, or a folder for one each.")
    ] = None,
    torch: Annotated[
        Path | None, typer.Option("--torch", help="Write the one schedule as PyTorch's CSV.")
    ] = None,
    torch_form: Annotated[TorchForm, typer.Option(help="Form of that CSV.")] = TorchForm.COMPUTE_COMMS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr.")] = False,
) -> None:
    """List schedules with their bubble, memory and traffic, found by simulating each."""
    from exactmap.sim.verbs.schedules import schedules as list_schedules

    found = list_schedules(
        names or (),
        p=p,
        m=m,
        v=v,
        f_ns=_ns("--f", f),
        i_ns=_ns("--i", i),
        w_ns=_ns("--w", w),
        hop_ns=_ns("--hop", hop),
        copy_ns=_ns("--copy", copy),
        slices=slices,
        group_size=group_size,
        braid_share=braid_share,
        stash_limit=stash_limit,
        layers=layers,
        embedding_layers=embedding_layers,
        head_layers=head_layers,
        out=out,
        torch=torch,
        torch_form=torch_form.value,
    )
    emit(found.to_list(), _shown(found), as_json=as_json, out=torch or out)
    for path in found.files:
        note(f"written: {path}", quiet=quiet)
    if all(row.makespan_ns is None for row in found):
        raise typer.Exit(InfeasibleError.exit_code)


def _ns(option: str, text: str) -> int:
    from exactmap.errors import InvalidInputError
    from exactmap.sim.scenario.units import parse_ns

    try:
        return parse_ns(text)
    except InvalidInputError as error:
        raise InvalidInputError(
            error.what, where=option, got=error.got, expected=error.expected, hint=error.hint
        ) from None


def _shown(found: Gallery) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_time

    shown: list[RenderableType] = []
    simulated = [_cells(row) for row in found if row.makespan_ns is not None]
    if simulated:
        widths = [max(map(len, cells)) for cells in zip(COLUMNS, *simulated, strict=True)]
        room = get_terminal_size((UNLIMITED_WIDTH, 0)).columns
        kept = next((kept for kept in CHOICES if _width(widths, kept) <= room), CHOICES[-1])
        shown.append(
            table(
                "",
                [COLUMNS[at] for at in kept],
                [[row[at] for at in kept] for row in simulated],
                whole_numbers=True,
            )
        )
        if kept != CHOICES[0]:
            away = ", ".join(COLUMNS[at] for at in CHOICES[0] if at not in kept)
            shown.append(f"({away}: from {_width(widths, CHOICES[0])} columns on, or with --json)")
    shown += [f"{row.name}: {row.why_not}" for row in found if row.why_not]
    if len(found) == 1:
        row = found.rows[0]
        if row.lower_bound_ns:
            bound = f"lower bound of the step: {show_time(row.lower_bound_ns)}"
            shown.append(f"{bound}, for any order with this placement and stash ({row.bound_name})")
        shown += [row.about, f"constraints: {row.constraints or 'none'}", f"source: {row.source}"]
    return shown


def _cells(row: GalleryRow) -> tuple[str, ...]:
    from exactmap.sim.report.quantity import show_share, show_time
    from exactmap.sim.verbs.schedules import show_stash

    cut = f" v{row.num_chunks}" * (row.num_chunks > 1) + f" s{row.num_slices}" * (row.num_slices > 1)
    assert row.makespan_ns is not None
    assert row.period_ns is not None
    assert row.bubble_barrier is not None
    assert row.bubble_steady is not None
    assert row.peak_stash_microbatches is not None
    return (
        row.name + cut + ("" if row.constraints_met else " (!)"),
        show_time(row.makespan_ns),
        show_share(row.bubble_barrier),
        show_time(row.period_ns),
        show_share(row.bubble_steady),
        show_stash(row.peak_stash_microbatches),
        f"{row.p2p_messages:,}",
        f"+{show_share(row.makespan_ns / row.lower_bound_ns - 1)}" if row.lower_bound_ns else "-",
    )


def _width(widths: Sequence[int], kept: Sequence[int]) -> int:
    """Characters of a table of these columns, with its padding and borders."""
    return sum(widths[at] for at in kept) + 3 * (len(kept) - 1) + 2
