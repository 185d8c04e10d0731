"""The schedules beside each other: what each asks for and gives, found by simulating its order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError
from exactmap.sim.verbs.schedules_input import (
    Durations,
    Model,
    check_model,
    check_numbers,
    check_share,
    check_size,
    check_target,
    whole_ns,
)

if TYPE_CHECKING:
    from exactmap.sim.schedules.order import Order
    from exactmap.sim.schedules.schedule import Request, Schedule
    from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["Gallery", "GalleryRow", "schedules", "show_stash"]

UNIT_NS = 1_000_000


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
    lower_bound_ns, bound_name
        What no order with this placement and this stash can beat under a barrier, and by which argument; None
        where nothing is proven (`exactmap.sim.schedules.order_bound`).
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
    lower_bound_ns: int | None = None
    bound_name: str = ""
    about: str = ""
    source: str = ""

    def to_dict(self) -> dict[str, object]:
        """The row as JSON-ready data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Gallery:
    """Rows as asked for, else in the registry's order, and the files that were written.

    Examples
    --------
    >>> gallery = schedules(["1f1b", "zb-h1"], p=4, m=8)
    >>> gallery["zb-h1"].makespan_ns
    27000000
    >>> [row.name for row in gallery]
    ['1f1b', 'zb-h1']
    """

    rows: tuple[GalleryRow, ...]
    files: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> GalleryRow:
        """The row of a schedule."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __iter__(self) -> Iterator[GalleryRow]:
        """Row by row."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many schedules there are."""
        return len(self.rows)

    def to_list(self) -> list[dict[str, object]]:
        """The rows as JSON-ready data: the document of `exactmap schedules --json`."""
        return [row.to_dict() for row in self.rows]


def show_stash(microbatches: float) -> str:
    """Microbatches for people, with at most two decimals.

    Examples
    --------
    >>> show_stash(1.4286), show_stash(11.5), show_stash(8)
    ('1.43', '11.5', '8')
    """
    return f"{microbatches:,.2f}".rstrip("0").rstrip(".")


def schedules(
    names: str | Sequence[str] = (),
    *,
    p: int = 4,
    m: int = 8,
    v: int = 2,
    f_ns: float = UNIT_NS,
    i_ns: float = UNIT_NS,
    w_ns: float = UNIT_NS,
    hop_ns: float = 0,
    copy_ns: float = 0,
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
        Which schedules, each shown once; all of the registry if empty.
    p, m, v
        Pipeline ranks, microbatches of a step, chunks per rank (for schedules that may have more than one).
    f_ns, i_ns, w_ns
        Forward pass, input gradient and weight gradient of all layers of a rank for one microbatch; a chunk
        takes its share. Durations are rounded to whole nanoseconds.
    hop_ns
        Latency of a message between ranks.
    copy_ns
        Copy of a rank's stash of one microbatch to the host, and as long back, for schedules that offload.
    slices
        Slices of a sequence, for schedules that cut sequences.
    group_size
        Microbatches in a group of interleaved schedules, 0: p.
    braid_share
        What a braid takes, as a share of the sum of its works; above 0.
    stash_limit
        Stashes that a rank may hold, in microbatches of its layers; 0: any number. Schedules that obey a
        limit get it, the others are measured against it.
    layers, embedding_layers, head_layers
        Layers of the model, and what embedding and head cost in layers: stages are then cut unevenly,
        balanced by rank. 0 layers: all stages are equal.
    out
        A PNG with a panel per schedule; or a folder (there already, or a path without suffix), which gets a
        PNG for each.
    torch, torch_form
        Write the order (of one schedule) as PyTorch's CSV, ``compute_only`` or ``compute_comms``.

    Raises
    ------
    InvalidInputError
        If a name is unknown or a number is out of range.
    InfeasibleError
        If a figure or a CSV is asked for and no schedule can run.
    """
    from exactmap.sim.schedules.registry import SCHEDULES, find_schedule
    from exactmap.sim.schedules.schedule import Request

    durations = Durations(
        whole_ns("f_ns", f_ns, 1),
        whole_ns("i_ns", i_ns, 1),
        whole_ns("w_ns", w_ns, 1),
        whole_ns("hop_ns", hop_ns, 0),
        whole_ns("copy_ns", copy_ns, 0),
        braid_share,
    )
    model = Model(layers, embedding_layers, head_layers)
    check_numbers(1, p=p, m=m, v=v, slices=slices)
    check_numbers(0, group_size=group_size, stash_limit=stash_limit)
    check_model(model)
    check_share(braid_share)
    check_target(out, torch)
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    chosen = [find_schedule(name) for name in names] if names else list(SCHEDULES.values())
    if torch is not None and len(chosen) != 1:
        raise InvalidInputError("a CSV holds one schedule", got=f"{len(chosen)} schedules", hint="name one")
    requests = [
        Request(
            p,
            m,
            schedule.fixed_chunks or (v if schedule.many_chunks else 1),
            slices if schedule.slices else 1,
            group_size if schedule.groups else 0,
            stash_limit=stash_limit if schedule.limits else 0,
        )
        for schedule in chosen
    ]
    check_size(requests, durations, model)
    rows: list[GalleryRow] = []
    drawn: list[tuple[GalleryRow, Order, WorkTimes]] = []
    for schedule, request in zip(chosen, requests, strict=True):
        row = GalleryRow(
            schedule.name,
            schedule.constraints,
            constraints_met=False,
            why_not=schedule.problem_of(request).removeprefix(f"{schedule.name} "),
            num_chunks=request.num_chunks,
            num_slices=request.num_slices,
            about=schedule.about,
            source=schedule.source,
        )
        if not row.why_not:
            try:
                times = _stage_times(schedule, request, durations, model)
                order = schedule.make(request._replace(times=times))
                row = _measured(row, order, times, stash_limit)
                drawn.append((row, order, times))
            except ExactmapError as error:
                row = replace(row, why_not=_reason(error))
        rows.append(row)
    if not drawn and (out is not None or torch is not None):
        raise InfeasibleError(
            "nothing to write: no schedule can run so",
            got="; ".join(f"{row.name}: {row.why_not}" for row in rows[:3]),
        )
    # A CSV may be refused, a figure is not: nothing is written of what fails.
    files = [*_write_torch(drawn, torch, torch_form), *_draw(drawn, out)]
    return Gallery(tuple(rows), tuple(map(str, files)))


def _reason(error: ExactmapError) -> str:
    """An error in one line, where it is one row's."""
    found = ", ".join(
        f"{word} {text}" for word, text in (("got", error.got), ("expected", error.expected)) if text
    )
    return f"{error.what}: {found}" if found else error.what


def _stage_times(schedule: Schedule, request: Request, durations: Durations, model: Model) -> WorkTimes:
    """What each stage takes: its even share of its rank's layers, or that of the layers it gets."""
    from exactmap.sim.schedules.partition import balance_layers
    from exactmap.sim.schedules.timeline import WorkTimes

    p = request.num_ranks
    num_stages = p if schedule.two_ranks else p * request.num_chunks
    counts, whole = [1.0] * num_stages, float(num_stages)
    if model.num_layers:
        placement = schedule.make(request._replace(times=WorkTimes.unit(num_stages))).placement
        balanced = balance_layers(*model[:1], num_stages, *model[1:], placement=placement)
        counts, whole = [float(count) for count in balanced], float(model.num_layers)
    weights = list(counts)
    if model.num_layers:
        weights[0] += model.embedding
        weights[-1] += model.head
    return WorkTimes(
        {
            (op, stage): round(total_ns * p * weight / whole)
            for op, total_ns in zip("FIW", durations[:3], strict=True)
            for stage, weight in enumerate(weights)
        },
        durations.hop_ns,
        durations.braid_share,
        {
            (op, stage): round(durations.copy_ns * p * count / whole)
            for op in ("OFF", "LD")
            for stage, count in enumerate(counts)
        },
    )


def _measured(row: GalleryRow, order: Order, times: WorkTimes, stash_limit: int) -> GalleryRow:
    from exactmap.sim.schedules.metrics import measure
    from exactmap.sim.schedules.order_bound import order_bound

    found = measure(order, times)
    over = stash_limit > 0 and found.peak_stash_microbatches > stash_limit
    why_not = (
        f"its stash of {show_stash(found.peak_stash_microbatches)} is over the limit of {stash_limit}"
        if over
        else ""
    )
    bound = order_bound(order, times)
    return replace(
        row,
        lower_bound_ns=bound.value_ns if bound else None,
        bound_name=bound.name if bound else "",
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
    if target.suffix.lower() == ".png" and not target.is_dir():
        save_figure(draw_gallery(list(panels.values())), target)
        return [target]
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidInputError("a file stands where the folder would", where=str(out)) from None
    files = [target / f"{name}.png" for name in panels]
    for panel, path in zip(panels.values(), files, strict=True):
        save_figure(draw_gallery([panel]), path)
    return files


def _title(row: GalleryRow) -> str:
    from exactmap.sim.report.quantity import show_share, show_time

    cut = "".join(
        f", {name}={number}"
        for name, number in (("v", row.num_chunks), ("slices", row.num_slices))
        if number > 1
    )
    assert row.makespan_ns is not None
    assert row.bubble_barrier is not None
    assert row.peak_stash_microbatches is not None
    return (
        f"{row.name}{cut}: {show_time(row.makespan_ns)}, bubble {show_share(row.bubble_barrier)}, "
        f"stash {show_stash(row.peak_stash_microbatches)}"
    )


def _write_torch(
    drawn: Sequence[tuple[GalleryRow, Order, WorkTimes]], torch: str | Path | None, form: str
) -> list[Path]:
    if torch is None or not drawn:
        return []
    from exactmap.sim.schedules.torch_csv.file import write_torch_csv

    write_torch_csv(drawn[0][1], torch, form=form)
    return [Path(torch)]
