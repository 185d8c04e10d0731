"""Output folders of verbs."""

from __future__ import annotations

from pathlib import Path

from exactmap.errors import ExecutionFailedError

__all__ = ["make_folder"]


def make_folder(path: str | Path) -> Path:
    """The folder, made with its parents if it is not there.

    Raises
    ------
    ExecutionFailedError
        If it cannot be made: a file of that name is in the way, or the file system refuses.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExecutionFailedError(
            "cannot make the output folder", where=str(path), got=error.strerror or str(error)
        ) from None
    return folder
