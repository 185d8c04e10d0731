"""A plan file as bytes, before any word of it is read: sizes, line ends, what is no ASCII text.

The first rules of phase 1 of `docs/reference/plan-format.md`, section 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from exactmap.sim.plan.verdict import PlanError

__all__ = ["MAX_FILE_BYTES", "MAX_LINE_BYTES", "each_line", "first_bad_line", "wrong_size"]

MAX_FILE_BYTES: Final = 1 << 30
MAX_LINE_BYTES: Final = 4096

_LONG_LINE: Final = re.compile(rb"[^\n]{%d}" % (MAX_LINE_BYTES + 1))
_ODD_BYTE: Final = re.compile(rb"[^\x20-\x7e\n]")
_PLAIN_BYTES: Final = bytes([0x0A, *range(0x20, 0x7F)])


def wrong_size(num_bytes: int, name: str) -> PlanError:
    """The verdict on a file that is empty or too large."""
    return PlanError(
        "text.size",
        1,
        "the file's size is out of range",
        name=name,
        got=f"{num_bytes} bytes",
        expected=f"1 to {MAX_FILE_BYTES}",
    )


def first_bad_line(data: bytes, name: str) -> tuple[int, PlanError] | None:
    """Start of the first line that is too long or no ASCII text, and what to say of it.

    Parameters
    ----------
    data
        The file's bytes, at least one.
    name
        The file's name, for messages.
    """
    starts: list[tuple[int, int, PlanError]] = []
    match = _LONG_LINE.search(data) if _longest_line(data) > MAX_LINE_BYTES else None
    if match is not None:
        line = data.count(b"\n", 0, match.start()) + 1
        error = PlanError(
            "text.size", line, "the line is too long", name=name, expected=f"at most {MAX_LINE_BYTES} bytes"
        )
        starts.append((match.start(), 0, error))
    match = _ODD_BYTE.search(data) if data.translate(None, _PLAIN_BYTES) else None
    if match is not None:
        start = data.rfind(b"\n", 0, match.start()) + 1
        line = data.count(b"\n", 0, match.start()) + 1
        error = PlanError(
            "text.ascii",
            line,
            "a byte that a plan cannot hold",
            name=name,
            got=f"0x{match[0][0]:02x} at column {match.start() - start + 1}",
            expected="printable ASCII and LF",
            hint="save the file with LF line ends" if match[0] == b"\r" else None,
        )
        starts.append((start, 1, error))
    if not data.endswith(b"\n"):
        error = PlanError(
            "text.ascii",
            data.count(b"\n") + 1,
            "the last line does not end in LF",
            name=name,
            hint="the file may be cut off: write the plan again",
        )
        starts.append((data.rfind(b"\n") + 1, 2, error))
    if not starts:
        return None
    start, _, error = min(starts, key=lambda entry: entry[:2])
    return start, error


def each_line(text: bytes) -> Iterator[tuple[int, str]]:
    """Start and text of each line of a text that ends in LF, or is empty."""
    start = 0
    while start < len(text):
        end = text.index(b"\n", start)
        yield start, text[start:end].decode("ascii")
        start = end + 1


def _longest_line(data: bytes) -> int:
    """Bytes of the longest line, its LF left out."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 0x0A)
    return int(np.diff(ends, prepend=-1, append=len(data)).max()) - 1
