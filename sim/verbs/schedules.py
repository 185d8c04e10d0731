"""The schedules beside each other: what each asks for and gives, found by simulating its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError, InvalidInputError, Place

if TYPE_CHECKING:
    from exactmap.sim.schedules.order import Order
    from exactmap.sim.schedules.schedule import Request, Schedule
    from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["Gallery", "GalleryRow", "schedules"]

UNIT_NS = 1_000_000
MAX_WORKS = 4_000_000


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """One schedule at the numbers asked for; times in ns, None where it cannot run.

    Attributes
    ----------
    constraints_met
        Whether it can run with these numbers and within the stash limit; else `why_not` says what is wrong.
    num_chunks, num_slices
        Chunks per rank and slices per sequence that it was run with.
    makespan_ns, period_ns
        Barrier and free clock (`docs/reference/plan-format.md`, section 3, rule 8).
    bubble_barrier, bubble_steady
        Idle share of each, mean over ranks.
    peak_stash_microbatches
        Most stashes alive at once on a rank, in microbatches of a rank's layers.
    p2p_messages
        Messages between ranks in a step, all ranks together.
    """

    name: str
    constraints: str
    constraints_met: bool
    why_not: str
    num_chunks: int
    num_slices: int
    makespan_ns: int | None = None
    period_ns: int | None = None
    bubble_barrier: float | None = None
    bubble_steady: float | None = None
    peak_stash_microbatches: float | None = None
    p2p_messages: int | None = None
    about: str = ""
    source: str = ""

    def to_dict(self) -> dict[str, object]:
        """The row as JSON-ready data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Gallery:
    """Rows in the registry's order, and the files that were written."""

    rows: tuple[GalleryRow, ...]
    files: tuple[str, ...] = ()

    def to_list(self) -> list[dict[str, object]]:
        """The rows as JSON-ready data: the document of `exactmap schedules --json`."""
        return [row.to_dict() for row in self.rows]


def schedules(
    names: Sequence[str] = (),
    *,
    p: int = 4,
    m: int = 8,
    v: int = 2,
    f_ns: int = UNIT_NS,
    i_ns: int = UNIT_NS,
    w_ns: int = UNIT_NS,
    hop_ns: int = 0,
    slices: int = 4,
    group_size: int = 0,
    braid_share: float = 1.0,
    stash_limit: int = 0,
    layers: int = 0,
    embedding_layers: float = 0.0,
    head_layers: float = 0.0,
    out: str | Path | None = None,
    torch: str | Path | None = None,
    torch_form: str = "compute_comms",
) -> Gallery:
    """Simulate schedules at one setting.

    Parameters
    ----------
    names
        Which schedules; all of the registry if empty.
    p, m, v
        Pipeline ranks, microbatches of a step, chunks per rank (for schedules that may have more than one).
    f_ns, i_ns, w_ns
        Forward pass, input gradient and weight gradient of all layers of a rank for one microbatch; a chunk
        takes its share.
    hop_ns
        Latency of a message between ranks.
    slices
        Slices of a sequence, for schedules that cut sequences.
    group_size
        Microbatches in a group of interleaved schedules, 0: p.
    braid_share
        What a braid takes, as a share of the sum of its works.
    stash_limit
        Stashes that a rank may hold, in microbatches of its layers; 0: any number. Schedules that obey a
        limit get it, the others are measured against it.
    layers, embedding_layers, head_layers
        Layers of the model, and what embedding and head cost in layers: stages are then cut unevenly,
        balanced by rank. 0 layers: all stages are equal.
    out
        A PNG with a panel per schedule; or a folder (a path without suffix), which gets a PNG for each.
    torch, torch_form
        Write the order (of one schedule) as PyTorch's CSV, ``compute_only`` or ``compute_comms``.

    Raises
    ------
    InvalidInputError
        If a name is unknown or a number is out of range.
    """
    from exactmap.sim.schedules.registry import SCHEDULES, find_schedule
    from exactmap.sim.schedules.schedule import Request

    _check_numbers(p=p, m=m, v=v, slices=slices)
    for name, value in (("f_ns", f_ns), ("i_ns", i_ns), ("w_ns", w_ns), ("hop_ns", hop_ns)):
        if value < 0 or (value == 0 and name != "hop_ns"):
            raise InvalidInputError("a duration is out of range", where=Place(field=name), got=f"{value} ns")
    chosen = [find_schedule(name) for name in names] if names else list(SCHEDULES.values())
    if torch is not None and len(chosen) != 1:
        raise InvalidInputError("a CSV holds one schedule", got=f"{len(chosen)} schedules", hint="name one")
    rows: list[GalleryRow] = []
    drawn: list[tuple[GalleryRow, Order, WorkTimes]] = []
    for schedule in chosen:
        request = Request(
            p,
            m,
            schedule.fixed_chunks or (v if schedule.many_chunks else 1),
            slices if schedule.slices else 1,
            group_size if schedule.groups else 0,
            stash_limit=stash_limit if schedule.limits else 0,
        )
        row = GalleryRow(
            schedule.name,
            schedule.constraints,
            constraints_met=False,
            why_not=schedule.problem_of(request),
            num_chunks=request.num_chunks,
            num_slices=request.num_slices,
            about=schedule.about,
            source=schedule.source,
        )
        if not row.why_not:
            try:
                times = _stage_times(
                    schedule, request, (f_ns, i_ns, w_ns), (layers, embedding_layers, head_layers)
                )
                times = replace(times, hop_ns=hop_ns, braid_share=braid_share)
                order = schedule.make(request._replace(times=times))
                row = _measured(row, order, times, stash_limit)
                drawn.append((row, order, times))
            except ExactmapError as error:
                row = replace(row, why_not=str(error.what))
        rows.append(row)
    files = [*_draw(drawn, out), *_write_torch(drawn, torch, torch_form)]
    return Gallery(tuple(rows), tuple(map(str, files)))


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InvalidInputError(
                "a number is out of range", where=Place(field=name), got=str(value), expected="at least 1"
            )
    works = 2 * numbers["p"] * numbers["m"] * numbers["v"] * numbers["slices"]
    if works > MAX_WORKS:
        raise InvalidInputError(
            "too many passes to list schedules for",
            got=f"about {works:,}",
            expected=f"at most {MAX_WORKS:,}",
            hint="the schedules keep their ranking at smaller numbers of microbatches",
        )


def _stage_times(
    schedule: Schedule, request: Request, rank_ns: tuple[int, int, int], model: tuple[int, float, float]
) -> WorkTimes:
    """What each stage takes: its even share of its rank's layers, or that of the layers it gets."""
    from exactmap.sim.schedules.partition import balance_layers
    from exactmap.sim.schedules.timeline import WorkTimes

    p = request.num_ranks
    num_stages = p if schedule.two_ranks else p * request.num_chunks
    num_layers, embedding, head = model
    weights, whole = [1.0] * num_stages, float(num_stages)
    if num_layers:
        placement = schedule.make(request._replace(times=WorkTimes.unit(num_stages))).placement
        counts = balance_layers(num_layers, num_stages, embedding, head, placement=placement)
        weights, whole = [float(count) for count in counts], float(num_layers)
        weights[0] += embedding
        weights[-1] += head
    return WorkTimes(
        {
            (op, stage): round(total_ns * p * weight / whole)
            for op, total_ns in zip("FIW", rank_ns, strict=True)
            for stage, weight in enumerate(weights)
        }
    )


def _measured(row: GalleryRow, order: Order, times: WorkTimes, stash_limit: int) -> GalleryRow:
    from exactmap.sim.schedules.metrics import measure

    found = measure(order, times)
    over = stash_limit > 0 and found.peak_stash_microbatches > stash_limit
    why_not = (
        f"its stash of {found.peak_stash_microbatches:g} is over the limit of {stash_limit}" if over else ""
    )
    return replace(
        row,
        constraints_met=not over,
        why_not=why_not,
        makespan_ns=found.makespan_ns,
        period_ns=found.period_ns,
        bubble_barrier=round(found.bubble_barrier, 6),
        bubble_steady=round(found.bubble_steady, 6),
        peak_stash_microbatches=found.peak_stash_microbatches,
        p2p_messages=found.p2p_messages,
    )


def _draw(drawn: Sequence[tuple[GalleryRow, Order, WorkTimes]], out: str | Path | None) -> list[Path]:
    if out is None or not drawn:
        return []
    from exactmap.sim.report.gallery import Panel, draw_gallery
    from exactmap.sim.report.pictures import save_figure
    from exactmap.sim.schedules.timeline import walk

    panels = {row.name: Panel(_title(row), order, walk(order, times)) for row, order, times in drawn}
    target = Path(out)
    if target.suffix.lower() == ".png":
        save_figure(draw_gallery(list(panels.values())), target)
        return [target]
    if target.suffix:
        raise InvalidInputError(
            "a figure is written as PNG, or one for each schedule into a folder",
            where=str(out),
            got=target.suffix,
            expected=".png or no suffix",
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidInputError("a file stands where the folder would", where=str(out)) from None
    files = [target / f"{name}.png" for name in panels]
    for panel, path in zip(panels.values(), files, strict=True):
        save_figure(draw_gallery([panel]), path)
    return files


def _title(row: GalleryRow) -> str:
    cut = "".join(
        f", {name}={number}"
        for name, number in (("v", row.num_chunks), ("slices", row.num_slices))
        if number > 1
    )
    assert row.makespan_ns is not None
    assert row.bubble_barrier is not None
    return (
        f"{row.name}{cut}: {row.makespan_ns / 1e6:g} ms, bubble {100 * row.bubble_barrier:.1f} %, "
        f"stash {row.peak_stash_microbatches:g}"
    )


def _write_torch(
    drawn: Sequence[tuple[GalleryRow, Order, WorkTimes]], torch: str | Path | None, form: str
) -> list[Path]:
    if torch is None or not drawn:
        return []
    from exactmap.sim.schedules.torch_csv import write_torch_csv

    write_torch_csv(drawn[0][1], torch, form=form)
    return [Path(torch)]
