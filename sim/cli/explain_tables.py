"""A step taken apart, as tables for people; a narrow terminal gets fewer columns."""

from __future__ import annotations

from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from exactmap.sim.cli.console import UNLIMITED_WIDTH, facts, table
from exactmap.sim.report.quantity import show_bytes, show_rate, show_share, show_time
from exactmap.sim.step.parts import group_of, grouped_ns
from exactmap.sim.workload.operators import Pass

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.explain import ExplainReport

__all__ = ["explain_tables"]

_PASSES = {
    "forward": "forward",
    "input": "input gradients",
    "weight": "weight gradients",
    "again": "computed again",
    "other": "copies",
}
_RESOURCES = {
    "arithmetic": "arithmetic",
    "memory": "memory bandwidth",
    "launch": "gaps between kernels",
    "scale_up": "scale-up network",
    "scale_out": "scale-out network",
    "host": "host",
    "bubble": "pipeline bubble",
    "spread": "slowest of equal GPUs",
}
_BY_PASS = frozenset({"F", "I", "W", "again"})
_OPERATOR_CHOICES = (
    frozenset[str](),
    frozenset({"share"}),
    frozenset({"share", "TFLOP/s"}),
    _BY_PASS,
    _BY_PASS | {"share"},
    _BY_PASS | {"share", "TFLOP/s"},
)
_AXIS_CHOICES = (
    frozenset[str](),
    frozenset({"ranks"}),
    frozenset({"ranks", "a GPU sends"}),
    frozenset({"ranks", "a GPU sends", "rate"}),
)
_LEAST_SHARE = 5e-5
"""What would print as 0.0 % of the step is left to --json."""


def explain_tables(report: ExplainReport) -> list[RenderableType]:
    """All tables of a report."""
    remarks = [
        *(f"warning: {text}" for text in report.prediction.warnings),
        *([f"assumed: {', '.join(report.setup.assumed)}"] if report.setup.assumed else []),
    ]
    refused = [(f"{each.knob} {each.old} to {each.new}", each.why) for each in report.impossible]
    return [
        facts(report.subject.name, _facts(report)),
        _where(report),
        *_operators(report),
        *_communication(report),
        _resources(report),
        _notches(report),
        *([facts("Cannot be had", refused)] if refused else []),
        _memory(report),
        *remarks,
    ]


def _facts(report: ExplainReport) -> list[tuple[str, str]]:
    setup, prediction = report.setup, report.prediction
    split, batch, software = setup.split, setup.batch, setup.software
    degrees = (("tp", split.tp), ("cp", split.cp), ("pp", split.pp), ("vpp", split.chunks), ("ep", split.ep))
    words = [f"{name} {size}" for name, size in degrees if size > 1] + [f"dp {split.dp}"]
    sequences = batch.microbatch * batch.num_microbatches * split.dp
    bound = report.freed[0]
    rows = [
        ("model", setup.model.name or "unnamed"),
        ("machine", f"{split.num_ranks:,} {setup.cluster.gpu.name}"),
        ("software", f"{software.family} {software.release}".rstrip() + f", {setup.precision.compute}"),
        ("layout", ", ".join([*words, f"ZeRO {split.zero}"])),
        ("batch", f"{sequences:,} x {batch.seq:,} tokens, microbatch {batch.microbatch}"),
        ("step", f"{show_time(prediction.step_ns)}"),
        ("80 % interval", f"{show_time(prediction.low_ns)} to {show_time(prediction.high_ns)}"),
    ]
    if report.subject.measured_ns:
        off = prediction.step_ns / report.subject.measured_ns - 1.0
        rows.append(("published", f"{show_time(report.subject.measured_ns)} (predicted: {_signed(off)})"))
    rows += [
        ("tokens/s per GPU", f"{report.tokens_per_s_per_gpu:,.0f}"),
        ("model FLOPs (MFU)", f"{show_share(report.utilisation)} of {_tera(report.peak_flop_per_s)}"),
        (
            "bound by",
            f"{_RESOURCES[bound.resource]}: free, the step would take {show_time(bound.step_ns)}",
        ),
    ]
    return rows


def _signed(share: float) -> str:
    """A relative change as percent; what rounds to nothing has no sign."""
    text = f"{100 * share:+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def _named(part: str) -> str:
    return part.replace("scale_", "scale-")


def _tera(flop_per_s: float) -> str:
    return f"{flop_per_s / 1e12:,.0f} TFLOP/s"


def _where(report: ExplainReport) -> RenderableType:
    """Groups of the step, and what each is made of; compute by pass."""
    total = report.prediction.step_ns
    hidden = {f"{each.axis} {each.tier}".strip(): each.hidden_ns for each in report.axes}
    parts = report.prediction.parts_ns
    lines: list[tuple[str, float, float]] = []
    for group, time in grouped_ns(parts).items():
        inner: list[tuple[str, float, float]] = []
        if group == "compute":
            inner = [(_PASSES[name], each, 0.0) for name, each in report.pass_ns.items()]
        else:
            inner = [(name, parts[name], hidden.pop(name, 0.0)) for name in _of_group(report, group)]
            if group == "communication":
                # What is hidden altogether is no part of the step.
                inner += [(name, 0.0, beside) for name, beside in hidden.items() if beside]
        inner = [each for each in inner if max(each[1:]) > _LEAST_SHARE * total]
        lines.append((group, time, sum(each[2] for each in inner)))
        if len(inner) > 1 or (inner and inner[0][0] != group):
            lines += [(f"  {_named(name)}", each, beside) for name, each, beside in inner]
    rows = [
        (name, show_time(time), show_share(time / total), show_time(beside) if beside else "")
        for name, time, beside in [*lines, ("step", total, 0.0)]
    ]
    return table("Where the time goes", ("", "time", "share", "hidden"), rows, whole_numbers=True)


def _of_group(report: ExplainReport, group: str) -> list[str]:
    parts = report.prediction.parts_ns
    return sorted((name for name in parts if group_of(name) == group), key=lambda name: -parts[name])


def _milliseconds(time_ns: float) -> str:
    return f"{time_ns / 1e6:,.1f}" if time_ns else ""


def _operators(report: ExplainReport) -> list[RenderableType]:
    total = report.prediction.step_ns
    columns = ("operator", "F", "I", "W", "again", "ms", "share", "TFLOP/s", "of peak", "bound by")
    rows = [
        (
            each.name,
            *(_milliseconds(each.pass_ns.get(step, 0.0)) for step in Pass),
            _milliseconds(each.again_ns),
            _milliseconds(each.total_ns),
            show_share(each.total_ns / total),
            f"{each.flop_per_s / 1e12:,.0f}" if each.flop else "",
            f"{each.share_of_peak:.0%}" if each.flop else "",
            each.bound,
        )
        for each in report.operators
    ]
    return _fitting(f"Operators, rank {report.prediction.busiest}", columns, rows, _OPERATOR_CHOICES)


def _communication(report: ExplainReport) -> list[RenderableType]:
    if not report.axes:
        return []
    rows = [
        (
            _named(f"{each.axis} {each.tier}".strip()),
            f"{each.ranks:,}",
            show_bytes(each.num_bytes),
            show_rate(each.bytes_per_s) if each.bytes_per_s else "",
            show_time(each.total_ns),
            show_share(each.hidden_ns / each.total_ns if each.total_ns else 0.0),
            show_time(each.exposed_ns + each.again_ns),
        )
        for each in report.axes
    ]
    columns = ("axis, network", "ranks", "a GPU sends", "rate", "time", "hidden", "exposed")
    return _fitting("Communication", columns, rows, _AXIS_CHOICES)


def _resources(report: ExplainReport) -> RenderableType:
    total = report.prediction.step_ns
    rows = [
        (_RESOURCES[each.resource], show_time(each.step_ns), show_share(each.saved_ns / total))
        for each in report.freed
    ]
    return table("If one of these took no time", ("", "step", "saved"), rows, whole_numbers=True)


def _notches(report: ExplainReport) -> RenderableType:
    rows = [
        (
            f"{each.notch.knob} {each.notch.old} to {each.notch.new}",
            show_time(each.step_ns),
            _signed(each.change),
            f"{each.memory_bytes / 2**30:.1f}",
            "yes" if each.fits else "no",
        )
        for each in report.notches
    ]
    columns = ("same GPUs, same batch", "step", "change", "GiB", "fits")
    return table("One notch of each knob", columns, rows, whole_numbers=True)


def _memory(report: ExplainReport) -> RenderableType:
    memory = report.prediction.memory
    assert memory is not None
    limit = report.subject.limit_bytes
    rows = [
        (name, show_bytes(size), show_share(size / limit))
        for name, size in sorted(memory.parts_bytes.items(), key=lambda pair: -pair[1])
        if size > _LEAST_SHARE * limit
    ]
    rows.append(("peak", show_bytes(memory.peak_bytes), show_share(memory.peak_bytes / limit)))
    rows.append(("a GPU has", show_bytes(limit), ""))
    title = f"Memory, rank {memory.rank} ({memory.moment})"
    return table(title, ("", "size", "share"), rows, whole_numbers=True)


def _fitting(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], choices: Sequence[frozenset[str]]
) -> list[RenderableType]:
    """A table without the first set of columns that leaves it room, and a line that says which.

    Columns without any text are left out.
    """
    filled = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    columns, rows = [columns[at] for at in filled], [[row[at] for at in filled] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    room = get_terminal_size((UNLIMITED_WIDTH, 0)).columns

    def width(dropped: frozenset[str]) -> int:
        kept = [size for name, size in zip(columns, widths, strict=True) if name not in dropped]
        return sum(kept) + 3 * len(kept) - 1

    dropped = next((each for each in choices if width(each) <= room), choices[-1])
    kept = [at for at, name in enumerate(columns) if name not in dropped]
    shown: list[RenderableType] = [
        table(
            title,
            [columns[at] for at in kept],
            [[row[at] for at in kept] for row in rows],
            whole_numbers=True,
        )
    ]
    if len(kept) < len(columns):
        away = ", ".join(name for name in columns if name in dropped)
        shown.append(f"(--json, or {width(frozenset())} columns: {away})\n")
    return shown
