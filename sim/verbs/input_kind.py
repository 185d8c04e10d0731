"""What a file that a user names is: a plan, a trace, one of our documents, a scenario, a schedule, or none.

Verbs that want one of them say so when they are given another, and name the verb that takes it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from exactmap.errors import InvalidInputError

__all__ = ["InputKind", "input_kind", "refuse_others"]

_NUM_BYTES = 256
_DOCUMENT = re.compile(rb'\s*\{\s*"schema_version"')


class InputKind(StrEnum):
    """Kinds that the first bytes tell apart."""

    PLAN = "a plan"
    TRACE = "a trace"
    DOCUMENT = "a JSON document of exactmap"
    SCENARIO = "a scenario"
    SCHEDULE = "a schedule of torch"
    OTHER = "something else"


_HINTS = {
    InputKind.PLAN: "`exactmap check`, `simulate`, `run` and `show` take plans",
    InputKind.TRACE: "`exactmap show` takes traces",
    InputKind.DOCUMENT: "`exactmap show` and `compare` take results",
    InputKind.SCHEDULE: "`exactmap check` takes schedules",
    InputKind.SCENARIO: "make a plan of it first: exactmap plan {path} -o my.plan",
}


def input_kind(path: str | Path) -> InputKind:
    """Tell by its first bytes what a file is; a scenario (.yaml) and a schedule (.csv) only by its name.

    Raises
    ------
    InvalidInputError
        If it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(_NUM_BYTES)
    except OSError as error:
        raise InvalidInputError(
            "cannot read the input", where=str(path), got=error.strerror or str(error)
        ) from None
    if head.startswith(b"exactmap-plan "):
        return InputKind.PLAN
    if head.startswith(b"# exactmap-trace "):
        return InputKind.TRACE
    if _DOCUMENT.match(head):
        return InputKind.DOCUMENT
    if Path(path).suffix == ".csv":
        return InputKind.SCHEDULE
    return InputKind.SCENARIO if Path(path).suffix in {".yaml", ".yml"} else InputKind.OTHER


def refuse_others(path: str | Path, wanted: str, *accepted: InputKind, hint: str | None = None) -> InputKind:
    """The kind of a file, if it is an accepted one or none that is known (a reader then says what is wrong).

    Raises
    ------
    InvalidInputError
        If it is another kind: which one, what is wanted, and what takes it.
    """
    kind = input_kind(path)
    if kind not in accepted and kind in _HINTS:
        remedy = hint or _HINTS[kind].format(path=path)
        raise InvalidInputError(f"this is {kind}", where=str(path), expected=wanted, hint=remedy)
    return kind
