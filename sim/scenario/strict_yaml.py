"""YAML without traps: one document, plain data, every value with its place.

PyYAML follows YAML 1.1 and is lenient: ``NO`` is False, ``1e6`` is text, ``12:30`` is 750, the second of two
equal keys wins, and a few hundred bytes of aliases unfold to millions of nodes. Here, as in the YAML 1.2
core schema, only ``true`` and ``false`` are booleans, ``1e6`` is a number and everything else is text;
aliases, anchors, tags, merge keys, equal keys, keys that are no text, and a second document are errors;
size, depth and number of values have limits that are checked before anything is built. All problems of a
document are reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from re import compile as compile_pattern
from typing import TYPE_CHECKING, NoReturn

import yaml

from exactmap.errors import ExactmapError, InvalidInputError, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_SIZE_BYTES",
    "KeyPath",
    "Marked",
    "dotted",
    "raise_together",
    "read_yaml",
    "read_yaml_file",
]

MAX_SIZE_BYTES = 4 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 32
_MAX_DIGITS = 40
_MAX_LISTED = 20

_INTEGER = compile_pattern(r"[-+]?(?:0|[1-9]\d*)")
_LEADING_ZERO = compile_pattern(r"[-+]?0\d+")
_FLOAT = compile_pattern(r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d{1,3})?")
_NULLS = frozenset({"", "~", "null"})
_BOOLEANS = {"true": True, "false": False}

KeyPath = tuple[str | int, ...]
"""Where a value stands in a document: keys and list indices from the root."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A document's plain data together with the place of each value.

    Parameters
    ----------
    value
        Nested dicts, lists, text, whole numbers, floats, booleans and None.
    places
        Path of a value -> where it stands. The path of a key in a mapping is also that of its value.
    prefix
        Path of this part in the whole document, for messages.
    """

    value: object
    places: dict[KeyPath, Place]
    prefix: KeyPath = ()

    def place(self, path: KeyPath) -> Place:
        """Place of a value, or of the closest value around it that the document has."""
        field = dotted(self.prefix + path) or None
        for end in range(len(path), -1, -1):
            found = self.places.get(path[:end])
            if found is not None:
                return Place(found.file, found.line, field)
        return Place(field=field)


def dotted(path: KeyPath) -> str:
    """Write a path as ``a.b.0``."""
    return ".".join(str(part) for part in path)


def read_yaml_file(path: str | Path) -> Marked:
    """Read a YAML file strictly.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, is over a limit, or is no plain single document; all problems are listed.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            "cannot read the file", where=Place(path), got=error.strerror or str(error)
        ) from None
    return read_yaml(data, path)


def read_yaml(data: bytes, source: str | Path | None = None) -> Marked:
    r"""Read a YAML document strictly from bytes.

    Parameters
    ----------
    data
        The document in UTF-8.
    source
        Its file, for messages.

    Raises
    ------
    InvalidInputError
        As `read_yaml_file`.

    Examples
    --------
    >>> read_yaml(b"rate: 1e6\nanswer: NO\n").value
    {'rate': 1000000.0, 'answer': 'NO'}
    """
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidInputError(
            "the file is too large",
            where=Place(source),
            got=f"more than {MAX_SIZE_BYTES} bytes",
            expected="at most 4 MiB",
        )
    text = _decode(data, source)
    _refuse_tabs(text, source)
    try:
        builder = _Builder(yaml.parse(text, Loader=yaml.SafeLoader), source)
        marked = builder.build()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        got = " ".join(part for part in (error.context, error.problem) if part)
        raise InvalidInputError("not valid YAML", where=Place(source, line), got=got) from None
    except yaml.YAMLError as error:
        raise InvalidInputError(
            "not valid YAML", where=Place(source), got=str(error).splitlines()[0]
        ) from None
    if builder.problems:
        raise_together(builder.problems)
    return marked


def raise_together(problems: Sequence[ExactmapError], what: str = "problems") -> NoReturn:
    """Raise one problem as it is, and several as one error that lists the first 20."""
    if len(problems) == 1:
        raise problems[0]
    more = len(problems) - _MAX_LISTED
    hint = f"{more} more follow from there" if more > 0 else None
    raise InvalidInputError(f"{len(problems)} {what}", problems=problems[:_MAX_LISTED], hint=hint)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return 1 if mark is None else mark.line + 1


def _decode(data: bytes, source: str | Path | None) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            "the file is not UTF-8",
            where=Place(source, line),
            got=f"byte 0x{data[error.start]:02x} at offset {error.start}",
        ) from None


def _refuse_tabs(text: str, source: str | Path | None) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise InvalidInputError(
                "a tab in the indentation",
                where=Place(source, number),
                expected="spaces",
                hint="replace the tab",
            )


class _Builder:
    """Builds plain data from parse events, so that limits hold before anything is nested."""

    def __init__(self, events: Iterator[yaml.Event], source: str | Path | None) -> None:
        self.events = events
        self.source = source
        self.problems: list[InvalidInputError] = []
        self.places: dict[KeyPath, Place] = {}
        self.num_nodes = 0

    def build(self) -> Marked:
        """Read the only document of the stream."""
        event = self._next()
        if isinstance(event, yaml.StreamStartEvent):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise InvalidInputError("the file is empty", where=Place(self.source))
        value = self._value(self._next(), ())
        event = self._next()
        while isinstance(event, yaml.DocumentEndEvent):
            event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document", hint="one file holds one document")
        return Marked(value, self.places)

    def _next(self) -> yaml.Event:
        return next(self.events)

    def _error(
        self, event: yaml.Event, what: str, field: str | None = None, **facts: str
    ) -> InvalidInputError:
        return InvalidInputError(what, where=Place(self.source, _line(event), field), **facts)  # type: ignore[arg-type]

    def _value(self, event: yaml.Event, path: KeyPath) -> object:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise self._error(event, "too many values", expected=f"at most {MAX_NODES}")
        if len(path) > MAX_DEPTH:
            raise self._error(event, "nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        field = dotted(path) or None
        if path not in self.places:
            self.places[path] = Place(self.source, _line(event))
        if isinstance(event, yaml.AliasEvent):
            self.problems.append(
                self._error(
                    event,
                    "aliases are not allowed",
                    field,
                    got=f"*{event.anchor}",
                    hint="write the value out",
                )
            )
            return None
        if getattr(event, "anchor", None) is not None:
            self.problems.append(
                self._error(event, "anchors are not allowed", field, got=f"&{getattr(event, 'anchor', '')}")
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problems.append(
                self._error(event, "tags are not allowed", field, got=str(tag), hint="write the plain value")
            )
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, field)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _sequence(self, path: KeyPath) -> list[object]:
        out: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            out.append(self._value(event, (*path, len(out))))
        return out

    def _mapping(self, path: KeyPath) -> dict[str, object]:
        out: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            line = _line(event)
            entry = (*path, key)
            if key in out:
                self.problems.append(
                    self._error(
                        event,
                        "the key stands twice",
                        dotted(entry),
                        got=f"lines {self.places[entry].line} and {line}",
                        expected="each key once",
                    )
                )
                # Its values go nowhere, under a path that no key can have.
                entry = (*path, f"{key} (again, line {line})")
            self.places[entry] = Place(self.source, line)
            value = self._value(self._next(), entry)
            out.setdefault(key, value)
        return out

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        field = dotted(path) or None
        if not isinstance(event, yaml.ScalarEvent):
            self.problems.append(
                self._error(event, "a key must be text", field, got="a list, mapping or alias")
            )
            self._value(event, (*path, "(key)"))
            return f"(key of line {_line(event)})"
        self.num_nodes += 1
        if event.anchor is not None or event.tag is not None:
            self.problems.append(self._error(event, "anchors and tags are not allowed", field))
        value = self._scalar(event, field)
        if not isinstance(value, str):
            self.problems.append(
                self._error(event, "a key must be text", field, got=event.value or "nothing", hint="quote it")
            )
            return event.value
        if value == "<<" and event.implicit[0]:
            self.problems.append(
                self._error(event, "merge keys are not allowed", field, hint="write the keys out")
            )
        return value

    def _scalar(self, event: yaml.ScalarEvent, field: str | None) -> object:
        text = event.value
        if not event.implicit[0]:
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if len(text) > _MAX_DIGITS and text.lstrip("+-").isdigit():
            self.problems.append(
                self._error(
                    event, "the number is too long", field, got=f"{len(text)} digits", expected="at most 40"
                )
            )
            return 0
        if _INTEGER.fullmatch(text):
            return int(text)
        if _LEADING_ZERO.fullmatch(text):
            self.problems.append(
                self._error(
                    event,
                    "a number with leading zeros",
                    field,
                    got=text,
                    hint=f"write {int(text)}, or quote it",
                )
            )
            return 0
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
        if not isfinite(number):
            self.problems.append(self._error(event, "the number is too large", field, got=text))
        return number
