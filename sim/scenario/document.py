"""Operations on a marked document: overrides from the command line, merging, facts, checks with their places.

A value's place travels with it: a number that ``--set`` changed is reported under ``--set a.b=c``, a number
from a cluster file under that file's line. A *fact* is a mapping {value, source, confidence}; it stands for
its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.scenario.strict_yaml import KeyPath, Marked, dotted, read_yaml
from exactmap.topology.hardware import Fact

__all__ = ["Problems", "apply_override", "as_mapping", "expand_shorthand", "merge", "take_facts", "validate"]

_Model = TypeVar("_Model", bound=BaseModel)
_FACT_KEYS = frozenset({"value", "source", "confidence"})
_MOST_HINTED = 2**53
_CONFIDENCES = ("measured", "datasheet", "derived", "recalled", "assumed", "given")


class Problems:
    """Collects problems so that all are reported at once."""

    def __init__(self) -> None:
        self.found: list[ExactmapError] = []

    def add(self, problem: ExactmapError, place: Place | None = None) -> None:
        """Note a problem; `place` replaces a place that names the field only."""
        if problem.problems:
            for part in problem.problems:
                self.add(part, place)
            return
        if place is not None and (not isinstance(problem.where, Place) or problem.where.file is None):
            problem.where = place
        if str(problem) not in map(str, self.found):
            self.found.append(problem)


def as_mapping(value: object) -> dict[str, object] | None:
    """The value as a mapping, or None if it is none."""
    return cast(dict[str, object], value) if isinstance(value, dict) else None


def expand_shorthand(document: Marked, section: str, key: str) -> Marked:
    """Let ``section: text`` stand for ``section: {key: text}``."""
    root = as_mapping(document.value)
    if root is None or not isinstance(root.get(section), str):
        return document
    places = dict(document.places)
    places[section, key] = places[section,]
    return Marked({**root, section: {key: root[section]}}, places, document.prefix)


def merge(base: Marked, over: Marked) -> Marked:
    """Lay one document over another: mappings are joined, everything else is replaced."""
    places = dict(base.places)

    def lay(below: object, above: object, path: KeyPath) -> object:
        lower, upper = as_mapping(below), as_mapping(above)
        if path in over.places:
            places[path] = over.places[path]
        if lower is None or upper is None or _FACT_KEYS & upper.keys():
            for known in [known for known in places if known[: len(path)] == path and len(known) > len(path)]:
                del places[known]
            places.update({known: at for known, at in over.places.items() if known[: len(path)] == path})
            return above
        return {
            key: lay(lower[key], upper[key], (*path, key))
            if key in lower and key in upper
            else _keep(lower, upper, key, path)
            for key in [*lower, *(key for key in upper if key not in lower)]
        }

    def _keep(lower: Mapping[str, object], upper: Mapping[str, object], key: str, path: KeyPath) -> object:
        if key in lower:
            return lower[key]
        inside = (*path, key)
        places.update({known: at for known, at in over.places.items() if known[: len(inside)] == inside})
        return upper[key]

    return Marked(lay(base.value, over.value, ()), places, over.prefix)


def apply_override(document: Marked, text: str, *, below: str = "") -> Marked:
    """Set one value: ``a.b.0=c`` with a YAML value on the right.

    Sections between that the document leaves out are made; whether the fields exist is for the schema to
    say. A list index must be there already.

    Parameters
    ----------
    document
        What to change.
    text
        The override as typed.
    below
        A section that the text may begin with and the document is: with ``cluster`` the text ``cluster.a=b``
        sets ``a``.

    Raises
    ------
    InvalidInputError
        If the text has no ``=``, the value is no YAML, or the path runs into a value that has no parts.
    """
    where = f"--set {text}"
    path_text, separator, value_text = text.partition("=")
    names = path_text.strip().split(".")
    if below and len(names) > 1 and names[0] == below:
        names = names[1:]
    if not separator or not all(names):
        raise InvalidInputError(
            "not an override", where=where, expected="a dotted path and a value, like training.steps=50"
        )
    try:
        value = read_yaml(value_text.encode() or b"null").value
    except InvalidInputError as error:
        got = error.got or error.what
        raise InvalidInputError("the value is not YAML", where=where, got=got) from None
    root = as_mapping(document.value)
    if root is None:
        raise InvalidInputError("the document has no fields to set", where=where)
    places = dict(document.places)
    path: KeyPath = ()

    def put(container: object, rest: list[str], path: KeyPath) -> object:
        name = rest[0]
        mapping = as_mapping(container)
        if mapping is not None:
            inside: KeyPath = (*path, name)
            places[inside] = Place(where)
            if len(rest) == 1:
                _mark(places, value, inside, where)
                return {**mapping, name: value}
            below = mapping.get(name)
            return {**mapping, name: put({} if below is None else below, rest[1:], inside)}
        if isinstance(container, list):
            entries = cast(list[object], container)
            if not name.isdigit() or int(name) >= len(entries):
                raise InvalidInputError(
                    "no such place in the list",
                    where=where,
                    got=name,
                    expected=f"0 to {len(entries) - 1}" if entries else "an empty list has no places",
                )
            index = int(name)
            inside = (*path, index)
            places[inside] = Place(where)
            new = value if len(rest) == 1 else put(entries[index], rest[1:], inside)
            return [*entries[:index], new, *entries[index + 1 :]]
        raise InvalidInputError(
            "the path runs into a value that has no parts", where=where, got=f"{dotted(path)} = {container!r}"
        )

    return Marked(put(root, names, path), places, document.prefix)


def _mark(places: dict[KeyPath, Place], value: object, path: KeyPath, where: str) -> None:
    """Mark a value that an override set, and all inside it."""
    for known in [known for known in places if known[: len(path)] == path]:
        del places[known]
    places[path] = Place(where)
    if isinstance(value, dict):
        for key, entry in cast(dict[str, object], value).items():
            _mark(places, entry, (*path, key), where)
    elif isinstance(value, list):
        for index, entry in enumerate(cast(list[object], value)):
            _mark(places, entry, (*path, index), where)


def take_facts(document: Marked, problems: Problems) -> tuple[Marked, dict[str, Fact]]:
    """Replace each {value, source, confidence} by its value, and return what the facts said."""
    facts: dict[str, Fact] = {}

    def walk(value: object, path: KeyPath) -> object:
        if isinstance(value, list):
            return [walk(entry, (*path, index)) for index, entry in enumerate(cast(list[object], value))]
        mapping = as_mapping(value)
        if mapping is None:
            return value
        if "value" not in mapping:
            return {key: walk(entry, (*path, key)) for key, entry in mapping.items()}
        place = document.place(path)
        for key in mapping.keys() - _FACT_KEYS:
            problems.add(
                InvalidInputError(
                    "unknown key of a fact", where=place, got=key, expected=", ".join(_FACT_KEYS)
                )
            )
        source, confidence = mapping.get("source"), mapping.get("confidence")
        if not isinstance(source, str) or not source:
            problems.add(
                InvalidInputError("a fact names its source", where=place, got=repr(source), expected="text")
            )
        if confidence not in _CONFIDENCES:
            problems.add(
                InvalidInputError(
                    "a fact states its confidence",
                    where=place,
                    got=repr(confidence),
                    expected=", ".join(_CONFIDENCES),
                )
            )
        facts[dotted(path)] = Fact(str(mapping["value"]), str(source), str(confidence))
        return mapping["value"]

    return Marked(walk(document.value, ()), document.places, document.prefix), facts


def validate(document: Marked, model: type[_Model], problems: Problems) -> _Model | None:
    """Check a document against a schema; problems name file, line and field, and the nearest known field."""
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        for entry in error.errors():
            path = tuple(part for part in entry["loc"])
            problems.add(
                _explain(
                    entry["type"], path, entry.get("ctx", {}), entry["input"], entry["msg"], model, document
                )
            )
    return None


def _explain(
    kind: str,
    path: KeyPath,
    context: Mapping[str, object],
    value: object,
    message: str,
    model: type[BaseModel],
    document: Marked,
) -> InvalidInputError:
    place = document.place(path)
    if kind == "exactmap":
        facts = {
            key: str(context[key]) for key in ("got", "expected", "hint") if context.get(key) is not None
        }
        return InvalidInputError(
            str(context["what"]),
            where=place,
            got=facts.get("got"),
            expected=facts.get("expected"),
            hint=facts.get("hint"),
        )
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        near = get_close_matches(str(path[-1]), known, 1)
        return InvalidInputError(
            "unknown field",
            where=place,
            expected=f"one of {', '.join(known)}" if known else None,
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    if kind == "missing":
        return InvalidInputError("a field is missing", where=place)
    got = "nothing" if value is None else repr(value)[:80]
    expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    hint = None
    if kind in {"model_type", "dict_type"}:
        known = _fields_at(model, path)
        expected = f"a section with fields such as {', '.join(known[:3])}" if known else "a section"
    if kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < _MOST_HINTED:
        hint = f"write {int(value)}"
    if kind == "literal_error":
        near = get_close_matches(
            str(value), str(context.get("expected", "")).replace("'", "").replace(" or ", ", ").split(", "), 1
        )
        hint = f"did you mean {near[0]!r}?" if near else None
    return InvalidInputError("wrong value", where=place, got=got, expected=expected, hint=hint)


def _fields_at(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """Names of the fields of a section of a schema."""
    current: type[BaseModel] = model
    for part in path:
        if isinstance(part, int):  # a place in a list, whose entries the field's type names
            continue
        field = current.model_fields.get(_field_name(current, str(part)))
        sections = _sections(None if field is None else field.annotation)
        if not sections:
            return []
        current = sections[0]
    return [field.alias or name for name, field in current.model_fields.items()]


def _sections(annotation: object) -> list[type[BaseModel]]:
    """The sections that a field's type is made of: ``list[CableSection] | None`` has one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _sections(inner)]


def _field_name(model: type[BaseModel], shown: str) -> str:
    for name, field in model.model_fields.items():
        if shown == (field.alias or name):
            return name
    return shown
