"""Text, or token files made elsewhere, become a data set that the engine maps into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exactmap.errors import InvalidInputError
from exactmap.sim.data.dataset import BYTE_VOCAB, Dataset, build_dataset, import_tokens

__all__ = ["DataReport", "data"]


@dataclass(frozen=True, slots=True)
class DataReport:
    """A data set that was written."""

    dataset: Dataset

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        made = self.dataset
        splits = {
            name: {
                "file": str(made.folder / split.file),
                "num_tokens": split.num_tokens,
                "num_documents": split.num_documents,
                "sha256": split.sha256,
            }
            for name, split in (("train", made.train), ("val", made.val))
        }
        return {
            "schema_version": 1,
            "kind": "data",
            "folder": str(made.folder),
            "tokenizer": made.tokenizer,
            "vocab": made.vocab,
            **splits,
        }


def data(
    sources: Sequence[str | Path] = (),
    out: str | Path = "data",
    *,
    val_fraction: float = 0.02,
    suffixes: Sequence[str] = (),
    vocab: int | None = None,
    token_bytes: int = 2,
    skip_bytes: int = 0,
    tokenizer: str = "custom",
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Make a data set with a validation split that training never sees.

    Parameters
    ----------
    sources
        Text files and folders, tokenised as bytes; empty: the Python standard library's own sources. With
        `vocab`: a training and a validation file of raw tokens made elsewhere.
    out
        Folder for ``train.tok``, ``val.tok`` and ``dataset.json``.
    val_fraction
        Share of the text files kept for validation.
    suffixes
        Only files of folders whose names end so.
    vocab
        Vocabulary of the token files; leave it out for text.
    token_bytes, skip_bytes, tokenizer
        Of token files: bytes per token (2 or 4), size of a header to skip, and a name for the tokenizer.
    progress
        Called with (files done, files in all).

    Raises
    ------
    InvalidInputError
        If a source is missing, empty, or not what `vocab` says.
    """
    if vocab is None:
        made = build_dataset(sources, out, val_fraction=val_fraction, suffixes=suffixes, progress=progress)
        return DataReport(made)
    if len(sources) != 2:
        raise InvalidInputError(
            "token files come as a pair",
            got=f"{len(sources)} sources",
            expected="the training file and the validation file",
            hint=f"leave --vocab out to tokenise text as bytes (vocabulary {BYTE_VOCAB})",
        )
    train, val = sources
    return DataReport(
        import_tokens(
            train, val, out, token_bytes=token_bytes, vocab=vocab, tokenizer=tokenizer, skip_bytes=skip_bytes
        )
    )
