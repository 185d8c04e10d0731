"""What a map is asked for: what stays spare, what may not be used, what must not be split.

Exclusions and constraints are short texts, the same in a scenario, on the command line and in a map file::

    gpu 17        gpu 100..107     host 3      tray 3      rack 12      leaf 7      rack 12 tray 3
    tp within rack     tp,cp within host     pp stages whole racks     dp along rails
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.mesh import DEFAULT_ORDER, Axis

__all__ = ["Constraint", "Exclusion", "MapRequest", "Part", "Rule", "Spares"]


class Spares(StrEnum):
    """What a rack leaves out where not all of it takes ranks."""

    GPUS = "gpus"
    """Its last GPUs, one by one: the least waste."""
    RAILS = "rails"
    """As many GPUs of each rail, so that equal places of racks are on one rail also beside dead GPUs."""
    TRAYS = "trays"
    """Whole hosts: 2 of 18 trays. A host with a dead GPU is left out first."""


class Part(StrEnum):
    """What an exclusion counts."""

    GPU = "gpu"
    HOST = "host"
    RACK = "rack"
    LEAF = "leaf"


class Rule(StrEnum):
    """What a constraint asks of the groups along its axes."""

    WITHIN_RACK = "within rack"
    """All members in one scale-up domain."""
    WITHIN_HOST = "within host"
    """All members in one host."""
    WHOLE_RACKS = "stages whole racks"
    """No rack serves two pipeline stages."""
    ALONG_RAILS = "along rails"
    """Each hop from rack to rack joins GPUs of one rail."""


_NAMES = {"gpu": Part.GPU, "host": Part.HOST, "tray": Part.HOST, "rack": Part.RACK, "domain": Part.RACK}
_EXCLUSION = re.compile(
    r"(?:(?:rack|domain) +(\d+) +)?(gpu|host|tray|rack|domain|leaf) +(\d+)(?: *\.\. *(\d+))?"
)
_CONSTRAINT = re.compile(r"([a-z]+(?: *, *[a-z]+)*) +(within|stages|along) +(.+)")
_RULES = {
    ("within", "rack"): Rule.WITHIN_RACK,
    ("within", "domain"): Rule.WITHIN_RACK,
    ("within", "host"): Rule.WITHIN_HOST,
    ("within", "tray"): Rule.WITHIN_HOST,
    ("stages", "whole racks"): Rule.WHOLE_RACKS,
    ("along", "rails"): Rule.ALONG_RAILS,
}
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Exclusion:
    """GPUs that may not be used.

    Parameters
    ----------
    part
        What is counted.
    first, last
        Both ends of a range.
    rack
        Count inside this rack; None: over the whole cluster.

    Examples
    --------
    >>> str(Exclusion.parse("gpu 100..107")), str(Exclusion.parse("rack 12 tray 3"))
    ('gpu 100..107', 'rack 12 host 3')
    """

    part: Part
    first: int
    last: int
    rack: int | None = None

    @staticmethod
    def parse(text: str) -> Exclusion:
        """Read one, such as ``tray 3``.

        Raises
        ------
        InvalidInputError
            If it is none.
        """
        found = _EXCLUSION.fullmatch(" ".join(text.split()))
        if found is None or max(len(digits or "") for digits in found.groups()[2:]) > _MAX_DIGITS:
            raise InvalidInputError(
                "not an exclusion",
                where=Place(field="map.exclude"),
                got=repr(text)[:80],
                expected="such as gpu 17, gpu 100..107, host 3, tray 3, rack 12, rack 12 tray 3, leaf 7",
            )
        rack, name, first, last = found.groups()
        part = _NAMES.get(name, Part.LEAF)
        if rack is not None and part not in {Part.GPU, Part.HOST}:
            raise InvalidInputError(
                "only GPUs and hosts are counted inside a rack",
                where=Place(field="map.exclude"),
                got=repr(text),
            )
        low, high = int(first), int(last or first)
        if high < low:
            raise InvalidInputError(
                "a range counts upwards", where=Place(field="map.exclude"), got=repr(text)
            )
        return Exclusion(part, low, high, None if rack is None else int(rack[:_MAX_DIGITS]))

    def __str__(self) -> str:
        """The text that it is read from, in one spelling."""
        inside = "" if self.rack is None else f"rack {self.rack} "
        numbers = str(self.first) if self.first == self.last else f"{self.first}..{self.last}"
        return f"{inside}{self.part.value} {numbers}"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What must not be split.

    Parameters
    ----------
    axes
        The groups along these.
    rule
        What is asked of each.

    Examples
    --------
    >>> str(Constraint.parse("cp, tp within domain"))
    'tp,cp within rack'
    """

    axes: tuple[Axis, ...]
    rule: Rule

    @staticmethod
    def parse(text: str) -> Constraint:
        """Read one, such as ``tp within rack``.

        Raises
        ------
        InvalidInputError
            If it is none.
        """
        found = _CONSTRAINT.fullmatch(" ".join(text.split()))
        rule = None if found is None else _RULES.get((found[2], found[3].removeprefix("on ")))
        names = [] if found is None else [name.strip() for name in found[1].split(",")]
        if rule is None or len(set(names)) != len(names) or not set(names) <= set(Axis):
            raise InvalidInputError(
                "not a constraint",
                where=Place(field="map.require"),
                got=repr(text)[:80],
                expected="such as tp within rack, tp,cp within host, pp stages whole racks, dp along rails",
                hint=f"in a list in brackets '{text},.. within rack' with its comma is written in quotes"
                if text in set(Axis)
                else None,
            )
        if rule is Rule.WHOLE_RACKS and names != ["pp"]:
            raise InvalidInputError(
                "only the pipeline has stages", where=Place(field="map.require"), got=repr(text)
            )
        return Constraint(tuple(axis for axis in Axis if axis in names), rule)

    def __str__(self) -> str:
        """The text that it is read from, in one spelling."""
        return f"{','.join(self.axes)} {self.rule.value}"


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A map as asked for.

    Parameters
    ----------
    order
        Axes onto ranks, innermost first; for whoever makes the mesh.
    spares
        What racks leave out.
    exclude
        What may not be used.
    require
        What must not be split.
    """

    order: tuple[Axis, ...] = DEFAULT_ORDER
    spares: Spares = Spares.GPUS
    exclude: tuple[Exclusion, ...] = ()
    require: tuple[Constraint, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether ranks simply fill rack after rack, so that arithmetic says all of the map."""
        return self.spares is Spares.GPUS and not self.exclude and not self.require
