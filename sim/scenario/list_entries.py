"""Overrides that reach into a list of the document below: ``fabric.switches.0.part=SN5600`` on a catalog's.

`exactmap.sim.scenario.document.apply_override` knows only the document that it changes. Where that one leaves
a list to the cluster that it names, the override becomes ``switches: {"0": {"part": "SN5600"}}``. Here, where
both are at hand, it becomes the whole list with that entry changed.
"""

from __future__ import annotations

from typing import cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.document import Problems, as_mapping, merge
from exactmap.sim.scenario.strict_yaml import KeyPath, Marked

__all__ = ["reach_into_lists"]


def reach_into_lists(base: Marked, over: Marked, problems: Problems) -> Marked:
    """Put whole lists where a document has entries of lists of the document below it.

    Parameters
    ----------
    base, over
        The document below, and the one that is to be laid over it.
    problems
        Takes places that a list does not have.
    """
    places = dict(over.places)

    def walk(below: object, above: object, down: KeyPath, up: KeyPath) -> object:
        upper, lower = as_mapping(above), as_mapping(below)
        if upper is None:
            return above
        inner = None if lower is None else lower.get("value")
        if isinstance(inner, list):  # of a fact
            lower, below, down = None, cast(list[object], inner), (*down, "value")
        if isinstance(below, list) and upper and all(key.isdigit() for key in upper):
            return fill(cast(list[object], below), upper, down, up)
        if lower is None:
            return above
        return {key: walk(lower.get(key), value, (*down, key), (*up, key)) for key, value in upper.items()}

    def fill(below: list[object], upper: dict[str, object], down: KeyPath, up: KeyPath) -> list[object]:
        entries = [Marked(entry, _below(base.places, (*down, index))) for index, entry in enumerate(below)]
        for key, value in upper.items():
            written = Marked(value, _below(over.places, (*up, key)))
            if int(key) >= len(entries):
                problems.add(
                    InvalidInputError(
                        "no such place in the list",
                        where=over.place((*up, key)),
                        got=key,
                        expected=f"0 to {len(entries) - 1}" if entries else "an empty list has no places",
                    )
                )
            elif "part" in (as_mapping(value) or {}):  # another part takes along all that the former brought
                entries[int(key)] = written
            else:
                entries[int(key)] = merge(entries[int(key)], written)
        for index, entry in enumerate(entries):
            places.update({(*up, index, *path): place for path, place in entry.places.items()})
        return [entry.value for entry in entries]

    return Marked(walk(base.value, over.value, (), ()), places, over.prefix)


def _below(places: dict[KeyPath, Place], path: KeyPath) -> dict[KeyPath, Place]:
    return {known[len(path) :]: place for known, place in places.items() if known[: len(path)] == path}
