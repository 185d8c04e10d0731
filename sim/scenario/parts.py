"""Parts of the catalog in a cluster: ``gpu: {part: GB300, power: 1200 W}`` stands for a part's numbers.

A part's fields are those of the section that names it, so to put it in is to lay what is written beside
``part`` over the part's own fields. Places and facts come along: a number of a part is reported under the
line of the part's file. To name another part in a section takes away all that the part before had brought,
but not how the parts are arranged (`_ARRANGEMENT`).
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import Final, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.document import Problems, as_mapping, merge
from exactmap.sim.scenario.list_entries import reach_into_lists
from exactmap.sim.scenario.strict_yaml import KeyPath, Marked, read_yaml_file
from exactmap.topology.catalog import PART_KINDS, parts_path

__all__ = ["SECTIONS", "expand_parts", "lay_over", "part_document", "part_names"]

_VERSION_KEY = "exactmap-parts"
_ARRANGEMENT: Final = frozenset({"domain_size"})

SECTIONS: Final[dict[str, KeyPath]] = {
    "gpus": ("gpu",),
    "hosts": ("host",),
    "racks": ("rack",),
    "scale-up": ("scale_up",),
    "interfaces": ("scale_out",),
    "switches": ("fabric", "switches"),
    "cables": ("fabric", "cables"),
}
"""Kind of parts -> the section of a cluster that takes one, or the list that takes several."""

_LISTS: Final = frozenset({"switches", "cables"})


@cache
def _parts(kind: str) -> Marked:
    document = read_yaml_file(parts_path(kind))
    content = dict(as_mapping(document.value) or {})
    if content.pop(_VERSION_KEY, None) != 1:
        raise InvalidInputError("not a file of parts", where=Place(parts_path(kind)))
    return Marked(content, document.places)


def part_names(kind: str) -> tuple[str, ...]:
    """Names of the parts of a kind, in the order of their file.

    Examples
    --------
    >>> "GB300" in part_names("gpus")
    True
    """
    return tuple(as_mapping(_parts(kind).value) or {})


def part_document(kind: str, name: str) -> Marked:
    """A part of the catalog as written: its fields, facts among them, each with its place.

    Raises
    ------
    InvalidInputError
        If there is no such part; the nearest names are the hint.
    """
    parts = _parts(kind)
    content = as_mapping(parts.value) or {}
    if name not in content:
        by_lower = {known.lower(): repr(known) for known in content}
        near = [by_lower[known] for known in get_close_matches(name.lower(), by_lower)]
        elsewhere = next((other for other in PART_KINDS if other != kind and name in part_names(other)), None)
        hint = f"did you mean {' or '.join(near)}?" if near else f"exactmap catalog lists all {kind}"
        if elsewhere:
            hint = f"{name} is one of the {elsewhere}"
        raise InvalidInputError("unknown part", got=repr(name), expected=", ".join(content), hint=hint)
    places = {path[1:]: place for path, place in parts.places.items() if path[0:1] == (name,)}
    return Marked(content[name], places)


def expand_parts(document: Marked, problems: Problems) -> Marked:
    """Put a part's fields wherever a cluster's section names one; problems are collected.

    Parameters
    ----------
    document
        A cluster section or file as written.
    problems
        Takes unknown names; their sections keep the key ``part``.
    """
    for kind, path in SECTIONS.items():
        if kind not in _LISTS:
            document = _expand_at(document, path, kind, problems)
            continue
        entries = _value_at(document.value, path)
        for index in range(len(cast(list[object], entries)) if isinstance(entries, list) else 0):
            document = _expand_at(document, (*path, index), kind, problems)
    return document


def lay_over(base: Marked, over: Marked, problems: Problems) -> Marked:
    """Lay a cluster's section, parts and all, over a cluster that has been expanded."""
    over = reach_into_lists(base, over, problems)
    for kind, path in SECTIONS.items():
        written = as_mapping(_value_at(over.value, path))
        below = as_mapping(_value_at(base.value, path))
        if kind not in _LISTS and written is not None and below is not None and "part" in written:
            kept = {key: value for key, value in below.items() if key in _ARRANGEMENT}
            base = _put(base, path, Marked(kept, _places_below(base, path)))
    return merge(base, expand_parts(over, problems))


def _expand_at(document: Marked, path: KeyPath, kind: str, problems: Problems) -> Marked:
    section = as_mapping(_value_at(document.value, path))
    if section is None or "part" not in section:
        return document
    rest = {key: value for key, value in section.items() if key != "part"}
    name = section["part"]
    if not isinstance(name, str):
        return document  # which the schema refuses
    try:
        part = part_document(kind, name)
    except InvalidInputError as error:
        problems.add(error, document.place((*path, "part")))
        return document  # with its `part`, so that nobody asks for the numbers that it would have brought
    return _put(document, path, merge(part, Marked(rest, _places_below(document, path))))


def _value_at(value: object, path: KeyPath) -> object:
    for key in path:
        if isinstance(key, int):
            value = cast(list[object], value)[key]
            continue
        mapping = as_mapping(value)
        if mapping is None:
            return None
        value = mapping.get(key)
    return value


def _places_below(document: Marked, path: KeyPath) -> dict[KeyPath, Place]:
    length = len(path)
    return {known[length:]: place for known, place in document.places.items() if known[:length] == path}


def _put(document: Marked, path: KeyPath, part: Marked) -> Marked:
    """The document with another value at a path that it has."""
    length = len(path)
    places = {known: place for known, place in document.places.items() if known[:length] != path}
    places.update({(*path, *known): place for known, place in part.places.items()})

    def put(value: object, rest: KeyPath) -> object:
        if not rest:
            return part.value
        key = rest[0]
        if isinstance(key, int):
            entries = cast(list[object], value)
            return [*entries[:key], put(entries[key], rest[1:]), *entries[key + 1 :]]
        mapping = as_mapping(value) or {}
        return {**mapping, key: put(mapping.get(key), rest[1:])}

    return Marked(put(document.value, path), places, document.prefix)
