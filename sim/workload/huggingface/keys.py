"""The keys of a ``config.json``: typed, with every problem and every note collected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.model import ModelConfig

__all__ = ["ImportedModel", "Keys"]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model's shape and what the file said beyond it.

    Parameters
    ----------
    config
        The shape.
    notes
        Sentences on what the file has and the shape has not, to be shown to the user.
    """

    config: ModelConfig
    notes: tuple[str, ...] = ()


class Keys:
    """The file's keys; collects every problem, and notes on what is left out."""

    def __init__(self, source: Path, document: dict[str, object]) -> None:
        self.source = source
        self.document = document
        self.problems: list[InvalidInputError] = []
        self.notes: list[str] = []

    def inside(self, key: str) -> Keys:
        """An object in the file, with the same problems and notes; empty if it is not there."""
        nested = self.document.get(key)
        if nested is not None and not isinstance(nested, dict):
            self.fail(key, "wrong value", nested, "an object")
            nested = None
        out = Keys(self.source, cast(dict[str, object], nested or {}))
        out.problems, out.notes = self.problems, self.notes
        return out

    def fail(self, key: str, what: str, got: object = None, expected: str | None = None) -> None:
        """Note a problem."""
        shown = None if got is None else json.dumps(got)[:80]
        self.problems.append(
            InvalidInputError(what, where=Place(self.source, field=key), got=shown, expected=expected)
        )

    def note(self, text: str) -> None:
        """Note what the user should know."""
        self.notes.append(f"{self.source}: {text}")

    def leave_out(self, *what: str) -> None:
        """Note parts of the model that are neither priced nor counted."""
        if what:
            parts = ", ".join(what)
            self.note(f"left out: {parts}; next to nothing in cost, but the C engine runs without")

    def has(self, key: str) -> bool:
        """Whether a key is there and says something."""
        return self.document.get(key) not in (None, False, 0, [], {})

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number; without a default it must be there."""
        value = self.document.get(key)
        if value is None:
            if default is None:
                self.fail(key, "the key is missing", None, "a whole number")
                return 1
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            kind = "positive" if least else "non-negative"
            self.fail(key, "wrong value", value, f"a {kind} whole number")
            return 1
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.document.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            self.fail(key, "wrong value", value, "a positive number")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.document.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "wrong value", value, "true or false")
            return default
        return value

    def text(self, key: str) -> str:
        """A text; it must be there."""
        value = self.document.get(key)
        if not isinstance(value, str) or not value:
            what = "the key is missing" if value is None else "wrong value"
            self.fail(key, what, value, "a text")
            return ""
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; None if it is not there."""
        value = self.document.get(key)
        if value is None:
            return None
        entries = cast(list[object], value) if isinstance(value, list) else [None]
        if not all(isinstance(entry, str) for entry in entries):
            self.fail(key, "wrong value", value, "a list of texts")
            return None
        return tuple(cast(list[str], entries))

    def only(self, key: str, allowed: tuple[object, ...], default: object) -> None:
        """Refuse any value that the model here cannot have."""
        value = self.document.get(key, default)
        if value not in allowed:
            self.fail(key, "not supported", value, " or ".join(json.dumps(entry) for entry in allowed))

    def finish(self) -> None:
        """Raise what was found.

        Raises
        ------
        InvalidInputError
            If there is any problem; all are listed.
        """
        if self.problems:
            self._raise()

    def _raise(self) -> NoReturn:
        if len(self.problems) == 1:
            raise self.problems[0]
        message = f"{self.source}: cannot be read as a model: {len(self.problems)} problems"
        raise InvalidInputError(message, problems=self.problems)
