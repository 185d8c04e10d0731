"""The verdict of the C engine's own plan reader, asked through the shared library.

Phase by phase the C reader judges as `exactmap.sim.plan` does: codes, lines and their order are fixed in
`docs/reference/plan-format.md`, section 7. This door is for whoever wants the engine's own word before a run.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from exactmap.backend_c.locate import library_path
from exactmap.errors import ExecutionFailedError, InvalidInputError, Place

__all__ = ["EngineVerdict", "check_file", "verdict"]

_OK: Final = 0
_OUT_OF_MEMORY: Final = 40
_TEXT_BYTES: Final = 8192
_HINT_BYTES: Final = 512


class _Verdict(ctypes.Structure):
    """`em_verdict_t` of exactmap/plan.h."""

    _fields_ = (
        ("code", ctypes.c_int),
        ("line", ctypes.c_uint64),
        ("text", ctypes.c_char * _TEXT_BYTES),
        ("hint", ctypes.c_char * _HINT_BYTES),
    )


@dataclass(frozen=True, slots=True)
class EngineVerdict:
    """What the C reader says: code `ok` and line 0 for a plan that it accepts."""

    code: str
    line: int = 0
    message: str = ""
    hint: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the plan passed every check."""
        return self.code == "ok"


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    library.em_plan_read.restype = ctypes.c_int
    library.em_plan_read.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(_Verdict),
    )
    library.em_plan_free.restype = None
    library.em_plan_free.argtypes = (ctypes.c_void_p,)
    library.em_verdict_name.restype = ctypes.c_char_p
    library.em_verdict_name.argtypes = (ctypes.c_int,)
    return library


def verdict(data: bytes) -> EngineVerdict:
    """Judge a plan's bytes by the C reader.

    Parameters
    ----------
    data
        The bytes of a plan file.

    Returns
    -------
    EngineVerdict
        The verdict; reading never fails otherwise, whatever the bytes.

    Raises
    ------
    MissingRequirementError
        If the shared library was not built.
    ExecutionFailedError
        If there is not enough memory to read the plan.
    """
    library = _library()
    plan = ctypes.c_void_p()
    said = _Verdict()
    status = library.em_plan_read(data, len(data), ctypes.byref(plan), ctypes.byref(said))
    library.em_plan_free(plan)
    if status == _OUT_OF_MEMORY:
        raise ExecutionFailedError("no memory to read the plan", got=f"{len(data)} bytes")
    code = "ok" if status == _OK else library.em_verdict_name(said.code).decode()
    return EngineVerdict(code, said.line, said.text.decode("ascii"), said.hint.decode("ascii"))


def check_file(path: Path | str) -> None:
    """Let the C reader check a plan file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or the reader refuses the plan: with its line, code, reason and hint.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInputError(
            "the plan cannot be read", where=Place(str(path)), got=error.strerror or type(error).__name__
        ) from error
    said = verdict(data)
    if not said.accepted:
        raise InvalidInputError(
            said.message, where=Place(str(path), said.line, said.code), hint=said.hint or None
        )
