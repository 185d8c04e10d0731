"""Data sets: text, or token files made elsewhere, become ``train.tok``, ``val.tok`` and ``dataset.json``.

The byte tokenizer needs no training: token = byte, 256 begins a document, 257 ends it, 258 pads; 259 in all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import ExecutionFailedError, InvalidInputError, Place
from exactmap.files import read_bytes, write_atomically
from exactmap.sim.data.corpus import (
    Document,
    find_documents,
    in_validation,
    standard_library,
    validation_rank,
)
from exactmap.sim.data.tokens import TokenHeader, TokenWriter, open_tokens

__all__ = [
    "BYTE_BOS",
    "BYTE_EOS",
    "BYTE_PAD",
    "BYTE_VOCAB",
    "DATASET_SCHEMA_VERSION",
    "Dataset",
    "Split",
    "build_dataset",
    "decode_bytes",
    "encode_bytes",
    "import_tokens",
    "open_dataset",
]

BYTE_BOS = 256
BYTE_EOS = 257
BYTE_PAD = 258
BYTE_VOCAB = 259
DATASET_SCHEMA_VERSION = 1

_MANIFEST_LIMIT_BYTES = 1 << 20
_CHUNK_TOKENS = 1 << 20
_LLMC_MAGICS = frozenset({20240520, 20240801})

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


@dataclass(frozen=True, slots=True)
class Split:
    """One token file of a data set."""

    file: str
    num_tokens: int
    num_documents: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder with ``train.tok``, ``val.tok`` and ``dataset.json``.

    Parameters
    ----------
    folder
        Where the files are.
    tokenizer
        ``bytes``, or the name that was given to token files made elsewhere.
    vocab
        Every token is below this number; the model's vocabulary must be at least as large.
    train, val
        The two splits; no document is in both.
    """

    folder: Path
    tokenizer: str
    vocab: int
    train: Split
    val: Split


def encode_bytes(text: bytes) -> NDArray[np.uint16]:
    """Tokens of one document: begin, its bytes, end; shape (len(text) + 2,).

    Examples
    --------
    >>> encode_bytes(b"hi").tolist()
    [256, 104, 105, 257]
    """
    tokens = np.empty(len(text) + 2, np.uint16)
    tokens[0] = BYTE_BOS
    tokens[1:-1] = np.frombuffer(text, np.uint8)
    tokens[-1] = BYTE_EOS
    return tokens


def decode_bytes(tokens: NDArray[np.integer]) -> bytes:
    """Bytes of tokens, without the three specials.

    Examples
    --------
    >>> decode_bytes(np.array([256, 104, 105, 257]))
    b'hi'
    """
    return tokens[tokens < BYTE_BOS].astype(np.uint8).tobytes()


def build_dataset(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    val_fraction: float = 0.02,
    suffixes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Dataset:
    """Tokenise text files as bytes and split off a validation set of whole files.

    Parameters
    ----------
    sources
        Files and folders of text; empty: the Python standard library's own sources.
    out
        Folder for the result; it is made if missing, and what was there under these names is replaced.
    val_fraction
        Wanted share of the files in the validation set, in (0, 1). At least one file is taken; of a single
        file, its last part.
    suffixes
        Only files of a folder whose names end so.
    progress
        Called after each file.

    Raises
    ------
    InvalidInputError
        If a source is missing, is no text, or the fraction is out of range.
    ExecutionFailedError
        If the result cannot be written.
    """
    if not 0 < val_fraction < 1:
        raise InvalidInputError(
            "the validation fraction is out of range", got=str(val_fraction), expected="between 0 and 1"
        )
    documents = find_documents(sources, suffixes=suffixes) if sources else standard_library()
    folder = _make_folder(out)
    held_out = _choose_validation(documents, val_fraction)
    counts = {"train": 0, "val": 0}
    train = TokenWriter(folder / "train.tok", 2, BYTE_VOCAB, "bytes")
    val = TokenWriter(folder / "val.tok", 2, BYTE_VOCAB, "bytes")
    with train, val:
        for index, document in enumerate(documents):
            text = read_bytes(document.path, 1 << 32, "text file")
            if len(documents) == 1:
                cut = _tail_start(text, val_fraction, document)
                train.write(encode_bytes(text[:cut]))
                val.write(encode_bytes(text[cut:]))
                counts = {"train": 1, "val": 1}
            else:
                split = "val" if document.name in held_out else "train"
                (val if split == "val" else train).write(encode_bytes(text))
                counts[split] += 1
            if progress is not None:
                progress(index + 1, len(documents))
    assert train.header is not None
    assert val.header is not None
    return _finish(folder, train.header, val.header, counts["train"], counts["val"])


def import_tokens(
    train: str | Path,
    val: str | Path,
    out: str | Path,
    *,
    token_bytes: int,
    vocab: int,
    tokenizer: str,
    skip_bytes: int = 0,
) -> Dataset:
    """Take over raw token files made elsewhere: little-endian uint16 or uint32, after `skip_bytes` of header.

    Parameters
    ----------
    train, val
        The raw files; nothing of one should be in the other.
    out
        Folder for the result.
    token_bytes
        2 or 4.
    vocab
        Size of the tokenizer's vocabulary; every token is compared with it.
    tokenizer
        A name for it, of ``a-z 0-9 . _ -`` (``gpt2``).
    skip_bytes
        Size of a foreign header, e.g. 1024 for llm.c's files.

    Raises
    ------
    InvalidInputError
        If a file is missing, its size does not fit, or a token is not below `vocab`.
    """
    folder = _make_folder(out)
    headers: list[TokenHeader] = []
    for source, name in ((Path(train), "train.tok"), (Path(val), "val.tok")):
        tokens = _raw_tokens(source, token_bytes, skip_bytes)
        with TokenWriter(folder / name, token_bytes, vocab, tokenizer) as writer:
            for start in range(0, len(tokens), _CHUNK_TOKENS):
                try:
                    writer.write(tokens[start : start + _CHUNK_TOKENS])
                except InvalidInputError as error:
                    raise InvalidInputError(
                        error.what,
                        where=Place(source, field=f"tokens from number {start}"),
                        got=error.got,
                        expected=error.expected,
                        hint="check the vocabulary, the bytes per token, and a header to skip",
                    ) from None
        assert writer.header is not None
        headers.append(writer.header)
    return _finish(folder, headers[0], headers[1], 0, 0)


def open_dataset(folder: str | Path, *, verify: bool = False) -> Dataset:
    """Read ``dataset.json`` and compare it with the two token files.

    Parameters
    ----------
    folder
        What `build_dataset` or `import_tokens` made.
    verify
        Also hash all tokens.

    Raises
    ------
    InvalidInputError
        If a file is missing, damaged, or the three do not belong together.
    """
    root = Path(folder)
    manifest = root / "dataset.json"
    text = read_bytes(manifest, _MANIFEST_LIMIT_BYTES, "data set's description")
    try:
        document: object = json.loads(text)
        assert isinstance(document, dict)
        if document["schema_version"] != DATASET_SCHEMA_VERSION:  # pyright: ignore[reportUnknownVariableType]
            raise KeyError("schema_version")
        splits = {
            name: Split(
                file=str(entry["file"]),
                num_tokens=int(entry["num_tokens"]),
                num_documents=int(entry["num_documents"]),
                sha256=str(entry["sha256"]),
            )
            for name, entry in ((name, document[name]) for name in ("train", "val"))  # pyright: ignore[reportUnknownVariableType]
        }
        dataset = Dataset(root, str(document["tokenizer"]), int(document["vocab"]), **splits)  # pyright: ignore[reportUnknownArgumentType]
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise InvalidInputError(
            "not a data set of this version",
            where=str(manifest),
            got=f"{type(error).__name__}: {error}",
            hint="make the folder again with `exactmap data`",
        ) from None
    for split in (dataset.train, dataset.val):
        header = open_tokens(root / Path(split.file).name, verify=verify).header
        found = (header.num_tokens, header.sha256, header.vocab, header.tokenizer)
        if found != (split.num_tokens, split.sha256, dataset.vocab, dataset.tokenizer):
            raise InvalidInputError(
                "the token file is not the one that the data set describes",
                where=str(root / split.file),
                got=f"{header.num_tokens} tokens, sha256 {header.sha256[:12]}",
                expected=f"{split.num_tokens} tokens, sha256 {split.sha256[:12]}",
                hint="make the folder again with `exactmap data`",
            )
    return dataset


def _make_folder(out: str | Path) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExecutionFailedError(
            "cannot make the folder", where=str(folder), got=error.strerror or str(error)
        ) from None
    return folder


def _choose_validation(documents: Sequence[Document], fraction: float) -> frozenset[str]:
    """Names of the files that are held out: at least one, never all."""
    names = sorted({document.name for document in documents}, key=validation_rank)
    chosen = [name for name in names if in_validation(name, fraction)]
    if not chosen:
        return frozenset(names[:1])
    return frozenset(chosen if len(chosen) < len(names) else chosen[:-1])


def _tail_start(text: bytes, fraction: float, document: Document) -> int:
    cut = len(text) - max(1, round(len(text) * fraction))
    newline = text.find(b"\n", cut)
    cut = newline + 1 if 0 <= newline < len(text) - 1 else cut
    if cut < 1:
        raise InvalidInputError(
            "the only file is too short to split", where=str(document.path), got=f"{len(text)} bytes"
        )
    return cut


def _raw_tokens(source: Path, token_bytes: int, skip_bytes: int) -> NDArray[np.integer]:
    if token_bytes not in {2, 4}:
        raise InvalidInputError("wrong bytes per token", got=str(token_bytes), expected="2 or 4")
    try:
        size = source.stat().st_size
        with source.open("rb") as stream:
            magic = int.from_bytes(stream.read(4), "little")
    except OSError as error:
        raise InvalidInputError(
            "cannot read the token file", where=str(source), got=error.strerror or str(error)
        ) from None
    if skip_bytes == 0 and magic in _LLMC_MAGICS:
        raise InvalidInputError(
            "the file starts with llm.c's header, not with tokens",
            where=str(source),
            hint="skip 1024 bytes",
        )
    if skip_bytes < 0 or size <= skip_bytes or (size - skip_bytes) % token_bytes:
        raise InvalidInputError(
            "the file's size does not fit",
            where=str(source),
            got=f"{size} bytes",
            expected=f"{skip_bytes} bytes of header, then tokens of {token_bytes} bytes",
        )
    return np.memmap(source, np.dtype(f"<u{token_bytes}"), "r", skip_bytes)


def _finish(folder: Path, train: TokenHeader, val: TokenHeader, num_train: int, num_val: int) -> Dataset:
    """Write the manifest last: a folder with one is complete."""
    dataset = Dataset(
        folder,
        train.tokenizer,
        train.vocab,
        Split("train.tok", train.num_tokens, num_train, train.sha256),
        Split("val.tok", val.num_tokens, num_val, val.sha256),
    )
    document = {
        "schema_version": DATASET_SCHEMA_VERSION,
        "tokenizer": dataset.tokenizer,
        "vocab": dataset.vocab,
        "train": asdict(dataset.train),
        "val": asdict(dataset.val),
    }
    write_atomically(folder / "dataset.json", json.dumps(document, indent=2) + "\n")
    return dataset
