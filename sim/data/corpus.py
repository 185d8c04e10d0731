"""Which files a data set is made of: found under folders, in one fixed order, split by whole files.

A file belongs to the validation split if the first 8 bytes of sha256(its relative path), as a number in [0,
1), lie below the wanted fraction. So a file never changes sides when others come or go. The order is that of
the relative path in bytes, the same on every machine.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exactmap.errors import InvalidInputError

__all__ = ["Document", "find_documents", "in_validation", "standard_library", "validation_rank"]

# Folders of the Python standard library that hold tests, other people's packages or caches.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled"}
)
_BINARY_PROBE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Document:
    """One text file: where it is, and its name relative to the folder that was named (with ``/``)."""

    path: Path
    name: str


def validation_rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone.

    Examples
    --------
    >>> validation_rank("json/decoder.py") == validation_rank("json/decoder.py")
    True
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2.0**64


def in_validation(name: str, fraction: float) -> bool:
    """Whether a file of that relative path is kept out of training, for a wanted `fraction` of the files."""
    return validation_rank(name) < fraction


def standard_library() -> list[Document]:
    """The ``.py`` files of this Python's standard library, without tests and installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    return find_documents([root], suffixes=(".py",), skipped_folders=_SKIPPED_FOLDERS)


def find_documents(
    sources: Iterable[str | Path],
    *,
    suffixes: Sequence[str] = (),
    skipped_folders: frozenset[str] = frozenset({"__pycache__"}),
) -> list[Document]:
    """Collect text files from files and folders.

    Parameters
    ----------
    sources
        Files, or folders that are searched to the bottom. Hidden files and folders, symbolic links, empty
        files and files with a zero byte among the first 8 KiB are left out of a folder; a file that is named
        itself must be text.
    suffixes
        Only files of a folder whose name ends so (``.py``); all if empty.
    skipped_folders
        Names of folders that are not entered.

    Returns
    -------
    list of Document
        In the order of their names; two sources with a common relative path keep the order given.

    Raises
    ------
    InvalidInputError
        If a source does not exist or no file is left.
    """
    paths = [Path(source) for source in sources]
    documents: list[Document] = []
    for source in paths:
        if source.is_file():
            if _is_binary(source):
                raise InvalidInputError(
                    "the file is no text",
                    where=str(source),
                    got="a zero byte or no content",
                    hint="token files made elsewhere are imported with their dtype and vocabulary",
                )
            documents.append(Document(source, source.name))
        elif source.is_dir():
            documents.extend(_in_folder(source, tuple(suffixes), skipped_folders))
        else:
            raise InvalidInputError("no such file or folder", where=str(source))
    if not documents:
        wanted = f"files that end in {', '.join(suffixes)}" if suffixes else "text files"
        raise InvalidInputError("the data set is empty", where=", ".join(map(str, paths)), expected=wanted)
    return sorted(documents, key=lambda document: document.name.encode())


def _in_folder(root: Path, suffixes: tuple[str, ...], skipped_folders: frozenset[str]) -> list[Document]:
    found: list[Document] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = list(folder.iterdir())
        except OSError as error:
            raise InvalidInputError(
                "cannot read the folder", where=str(folder), got=error.strerror or str(error)
            ) from None
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in skipped_folders:
                    pending.append(entry)
            elif (
                entry.is_file() and (not suffixes or entry.name.endswith(suffixes)) and not _is_binary(entry)
            ):
                found.append(Document(entry, entry.relative_to(root).as_posix()))
    return found


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_BINARY_PROBE_BYTES)
    except OSError as error:
        raise InvalidInputError(
            "cannot read the file", where=str(path), got=error.strerror or str(error)
        ) from None
    return not head or b"\0" in head
