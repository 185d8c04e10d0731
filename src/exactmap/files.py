"""Writing outputs so that a reader never sees half a file.

A regular file is written under a temporary name beside its target and renamed; an output that is no regular
file (`/dev/stdout`, a named pipe) is written directly.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from exactmap.errors import ExecutionFailedError, InvalidInputError

__all__ = ["read_bytes", "write_atomically"]


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, all or nothing.

    Raises
    ------
    ExecutionFailedError
        If the file system refuses; an older file at `path` is then unharmed.
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                stream.write(data)
            return
        target = target.resolve()  # a link stays a link: what it points to is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExecutionFailedError(
            "cannot write the output", where=str(path), got=error.strerror or str(error)
        ) from None


def read_bytes(path: str | Path, limit_bytes: int, what: str) -> bytes:
    """Read a whole file of at most `limit_bytes`; `what` names its kind in messages.

    Raises
    ------
    InvalidInputError
        If it cannot be read, is a folder, or is larger.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the {what}", where=str(path), got=error.strerror or str(error)
        ) from None
    if len(data) > limit_bytes:
        raise InvalidInputError(
            f"the {what} is too large", where=str(path), expected=f"at most {limit_bytes} bytes"
        )
    return data


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
