"""Predicted against measured: a picture, and the tables of the page on accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes, write_atomically

if TYPE_CHECKING:
    from exactmap.sim.published.accuracy import Accuracy
    from exactmap.sim.published.bars import Bar
    from exactmap.sim.published.statistics import ErrorStatistics

__all__ = ["draw_accuracy", "write_accuracy_page"]

_BEGIN, _END = "<!-- published: begin -->", "<!-- published: end -->"
_MOST_BYTES = 16 * 2**20


def draw_accuracy(path: str | Path, accuracy: Accuracy) -> None:
    """Draw measured against predicted seconds by GPU type; filled: rows that no constant was fitted on."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axes, ratios = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    gpus = sorted({row.gpu for row in accuracy.rows if row.set_name != "zero_bubble"})
    for number, gpu in enumerate(gpus):
        color = f"C{number}"
        for fitted in (True, False):
            cases = [
                row.case
                for row in accuracy.rows
                if row.gpu == gpu and row.fitted is fitted and row.set_name != "zero_bubble"
            ]
            axes.scatter(
                [case.measured for case in cases],
                [case.predicted for case in cases],
                s=9,
                facecolors="none" if fitted else color,
                edgecolors=color,
                linewidths=0.6,
                alpha=0.75,
                label=None if fitted else gpu,
            )
    ends = [0.02, 300.0]
    axes.plot(ends, ends, color="0.4", linewidth=0.8)
    axes.fill_between(ends, [0.8 * end for end in ends], [1.2 * end for end in ends], color="0.85", zorder=0)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured step, s",
        ylabel="predicted step, s",
        xlim=ends,
        ylim=ends,
    )
    axes.set_title("Filled: not fitted; band: 20 %", fontsize=9)
    axes.legend(fontsize=7, ncols=2)
    held = [
        [
            100 * row.case.error
            for row in accuracy.held_out()
            if row.gpu == gpu and row.set_name != "zero_bubble"
        ]
        for gpu in gpus
    ]
    named = [(gpu, errors) for gpu, errors in zip(gpus, held, strict=True) if errors]
    ratios.boxplot([errors for _, errors in named], orientation="horizontal", whis=(10, 90), showfliers=False)
    ratios.set_yticks(
        range(1, len(named) + 1), [f"{gpu} ({len(errors)})" for gpu, errors in named], fontsize=8
    )
    ratios.axvline(0.0, color="0.4", linewidth=0.8)
    ratios.set(xlabel="error of rows that were not fitted, %")
    ratios.set_title("Box: half of the rows; whiskers: 80 %", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def write_accuracy_page(path: str | Path, accuracy: Accuracy, bars: Sequence[Bar]) -> None:
    """Replace the marked region of a page by the tables.

    Raises
    ------
    InvalidInputError
        If the page has no such region.
    """
    text = read_bytes(Path(path), _MOST_BYTES, "page").decode("utf-8")
    if _BEGIN not in text or _END not in text:
        raise InvalidInputError(
            "the page has no marked region", where=Place(path), expected=f"{_BEGIN} and {_END}"
        )
    head, rest = text.split(_BEGIN, maxsplit=1)
    tail = rest.split(_END, maxsplit=1)[1]
    body = "\n".join(_lines(accuracy, bars))
    write_atomically(path, f"{head}{_BEGIN}\n{body}\n{_END}{tail}")


def _row(name: str, found: ErrorStatistics) -> str:
    return (
        f"| {name} | {found.n:,} | {found.mape:.1%} | {found.median:.1%} | {found.p90:.1%} | "
        f"{found.bias:+.1%} | {found.worst:.0%} ({found.worst_id}) | {found.r2:.3f} | "
        f"{found.coverage:.0%} | {found.width:.2f} |"
    )


_HEAD = (
    "| {} | n | mean | median | 90th percentile | bias | worst | R2 | covered | width |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def _lines(accuracy: Accuracy, bars: Sequence[Bar]) -> Iterator[str]:
    held = accuracy.held_out()
    yield (
        f"{len(accuracy.rows):,} results predicted, {len(accuracy.refused)} not; "
        f"{len(held):,} of them were not fitted."
    )
    yield ""
    yield from (line.format("rows that were not fitted, by GPU") for line in _HEAD)
    for name, found in sorted(accuracy.by(held, lambda row: f"{row.gpu}, {row.kind}").items()):
        yield _row(name, found)
    yield ""
    yield from (line.format("by set") for line in _HEAD)
    for name, found in accuracy.by(held, lambda row: row.set_name).items():
        yield _row(name, found)
    yield ""
    yield from (line.format("rows that constants were fitted on") for line in _HEAD)
    fitted = [row for row in accuracy.rows if row.fitted]
    for name, found in sorted(accuracy.by(fitted, lambda row: f"{row.gpu}, {row.kind}").items()):
        yield _row(name, found)
    yield ""
    yield "| grid, all rows | groups | mean regret | worst | Kendall's tau |"
    yield "|---|---|---|---|---|"
    for name, grid in accuracy.grids().items():
        yield (
            f"| {name} | {grid.groups} | {grid.mean_regret:.2%} | {grid.worst_regret:.1%} | {grid.tau:.3f} |"
        )
    yield ""
    yield "| bar, on rows that were not fitted | limit | found | reached |"
    yield "|---|---|---|---|"
    for bar in bars:
        sign = "at least" if bar.at_least else "at most"
        reached = "yes" if bar.reached else "**no**"
        yield f"| {bar.what} | {sign} {bar.limit:.3g} | {bar.found:.3f} | {reached} |"
    if accuracy.refused:
        yield ""
        yield "| not predicted | why |"
        yield "|---|---|"
        for refused in accuracy.refused:
            yield f"| {refused.id} | {refused.reason} |"
