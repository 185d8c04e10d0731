"""`exactmap data`: make a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, progress, table, verb

__all__ = ["data"]


@verb
def data(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Text files and folders. None: the Python standard library's own sources."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data set.")] = Path("data"),
    val_fraction: Annotated[float, typer.Option(help="Share kept for validation.")] = 0.02,
    suffix: Annotated[list[str] | None, typer.Option(help="Only files that end so; may be repeated.")] = None,
    vocab: Annotated[
        int | None,
        typer.Option(
            help="The sources are two raw token files, training and validation, with this vocabulary."
        ),
    ] = None,
    token_bytes: Annotated[int, typer.Option(help="Bytes per token of raw token files: 2 or 4.")] = 2,
    skip_bytes: Annotated[int, typer.Option(help="Header bytes of raw token files to skip.")] = 0,
    tokenizer: Annotated[str, typer.Option(help="Name of the tokenizer of raw token files.")] = "custom",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Turn text, or tokens made elsewhere, into training and validation files."""
    from exactmap.sim.verbs.data import data as make

    with progress("reading", quiet=quiet) as tell:
        report = make(
            sources or (),
            out,
            val_fraction=val_fraction,
            suffixes=suffix or (),
            vocab=vocab,
            token_bytes=token_bytes,
            skip_bytes=skip_bytes,
            tokenizer=tokenizer,
            progress=lambda done, total: tell(done / max(total, 1), f"file {done} of {total}"),
        )
    made = report.dataset
    rows = [
        (name, f"{split.num_tokens:,}", f"{split.num_documents:,}", str(made.folder / split.file))
        for name, split in (("train", made.train), ("val", made.val))
    ]
    title = f"{made.tokenizer} tokens, vocabulary {made.vocab}"
    emit(report.to_dict(), [table(title, ("split", "tokens", "documents", "file"), rows)], as_json=as_json)
