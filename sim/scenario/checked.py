"""What the classes of a file's border share: strictness, and errors of the project inside the schema library."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from exactmap.errors import InvalidInputError

__all__ = ["Section", "checked"]

_T = TypeVar("_T")


class Section(BaseModel):
    """A section of a file: no unknown fields, no conversions, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def checked(parse: Callable[[object], _T]) -> Callable[[object], _T | None]:
    """Turn the project's errors into the schema library's, keeping their parts."""

    def check(value: object) -> _T | None:
        if value is None:
            return None
        try:
            return parse(value)
        except InvalidInputError as error:
            raise PydanticCustomError(
                "exactmap",
                "invalid value",
                {"what": error.what, "got": error.got, "expected": error.expected, "hint": error.hint},
            ) from None

    return check
