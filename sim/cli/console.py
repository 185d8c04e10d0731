"""What a verb prints: data on stdout, everything else on stderr.

`--json` prints one document whose first key is `schema_version`, or a list of objects where the reference
says so; otherwise a text for people. Both come from the same result, so nothing is said in one and not in the
other.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TextIO

import typer

from exactmap.errors import ExactmapError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

__all__ = ["Progress", "emit", "facts", "note", "progress", "table", "verb"]

P = ParamSpec("P")

INTERRUPTED = 130
EXECUTION_FAILED = 6
BUG = 1
UNLIMITED_WIDTH = 110

Progress = Callable[[float, str], None]
"""Told the fraction done (0 to 1) and what is being done."""


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Turn what a verb raises into a message on stderr and a documented exit code; never a traceback."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        # A file name may hold bytes that the terminal's encoding does not: show them escaped.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except ExactmapError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of stdout has left (`| head`): what it wanted it has.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"error: {where}{error.strerror or error}", file=sys.stderr)
            raise typer.Exit(EXECUTION_FAILED) from None
        except MemoryError as error:
            print(f"error: this machine's memory is too small: {error}", file=sys.stderr)
            raise typer.Exit(EXECUTION_FAILED) from None
        except Exception as error:  # noqa: BLE001 - the last resort: a bug too gets a message and a code
            if os.environ.get("EXACTMAP_TRACEBACK"):
                traceback.print_exc()
            print(f"error: a bug in exactmap: {type(error).__name__}: {error}", file=sys.stderr)
            print("hint: EXACTMAP_TRACEBACK=1 shows where; please report it with the input", file=sys.stderr)
            raise typer.Exit(BUG) from None

    return guarded


def _console(stream: TextIO) -> Console:
    """A console on a stream: colours only on a terminal, and never with NO_COLOR."""
    from rich.console import Console

    class Plain(Console):
        """Leaves a reader that has gone to `verb`."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    width = None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED_WIDTH
    # What is shown is data: a path with [brackets] or :colons: stays as it is.
    return Plain(file=stream, highlight=False, markup=False, emoji=False, width=width)


def emit(
    document: Mapping[str, object] | Sequence[Mapping[str, object]],
    shown: Sequence[RenderableType],
    *,
    as_json: bool,
    out: Path | None = None,
) -> None:
    """Print a result: the document with `--json`, else what is shown to people.

    Where `out` is stdout itself (``-o /dev/stdout``), stdout holds that file alone, and this goes to stderr.
    """
    stream = sys.stderr if out is not None and _is_stdout(out) else sys.stdout
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False), file=stream)
        return
    console = _console(stream)
    for part in shown:
        # A line of text is left whole, so that what is copied from it is whole: a hash, a path.
        console.print(part, soft_wrap=isinstance(part, str))


def _is_stdout(path: Path) -> bool:
    try:
        return path.samefile("/dev/stdout")
    except OSError:
        return False


def note(text: str, *, quiet: bool = False) -> None:
    """Say something about the work, on stderr."""
    if not quiet:
        print(text, file=sys.stderr)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole_numbers: bool = False
) -> RenderableType:
    """A table for people; the first column is left-aligned, the others are numbers.

    In a narrow terminal cells are folded; with `whole_numbers` those of the first column alone.
    """
    from rich import box
    from rich.table import Table

    out = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        out.add_column(
            column,
            justify="left" if index == 0 else "right",
            overflow="fold",
            no_wrap=whole_numbers and index > 0,
        )
    for row in rows:
        out.add_row(*row)
    return out


def facts(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and what is known of each, one below the other."""
    from rich import box
    from rich.table import Table

    out = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, show_header=False)
    out.add_column(no_wrap=True)
    out.add_column(overflow="fold")
    for row in rows:
        out.add_row(*row)
    return out


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Generator[Progress]:
    """A progress bar on stderr where that is a terminal; silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _fraction, _what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda fraction, now: bar.update(task, completed=fraction, description=now)
