"""The section `map` of a scenario: how ranks lie on GPUs, what stays spare, what must not be split.

Exclusions and constraints are the short texts of `exactmap.topology.exact_map.request`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from exactmap.errors import InvalidInputError
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.mapping import DEFAULT_ORDER, Axis

__all__ = ["MapSection", "map_document", "map_request"]

_T = TypeVar("_T")


def _texts(parse: Callable[[str], _T]) -> Callable[[object], tuple[_T, ...]]:
    """Read a list of short texts, or one of them."""

    def read(value: object) -> tuple[_T, ...]:
        entries = cast(list[object], value) if isinstance(value, list) else [value] * (value is not None)
        try:
            return tuple(parse(entry if isinstance(entry, str) else repr(entry)) for entry in entries)
        except InvalidInputError as error:
            raise _as_schema_error(error) from None

    return read


def _order(value: object) -> tuple[Axis, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    names = [str(entry).strip() for entry in cast(list[object], entries)] if isinstance(entries, list) else []
    if sorted(names) != sorted(Axis):
        raise _as_schema_error(
            InvalidInputError(
                "the order must name each axis once",
                got=repr(value)[:80],
                expected="a permutation of " + ",".join(DEFAULT_ORDER) + ", the innermost first",
            )
        )
    return tuple(Axis(name) for name in names)


def _as_schema_error(error: InvalidInputError) -> PydanticCustomError:
    facts = {"what": error.what, "got": error.got, "expected": error.expected, "hint": error.hint}
    return PydanticCustomError("exactmap", "invalid value", facts)


def _list_of(*examples: str) -> WithJsonSchema:
    text = {"type": "string", "examples": list(examples)}
    return WithJsonSchema({"anyOf": [text, {"type": "array", "items": text}]})


_AXIS_NAMES: dict[str, object] = {
    "type": "array",
    "items": {"enum": sorted(Axis)},
    "minItems": 5,
    "maxItems": 5,
}
Order = Annotated[tuple[Axis, ...], BeforeValidator(_order), WithJsonSchema(_AXIS_NAMES)]
Exclusions = Annotated[
    tuple[Exclusion, ...],
    BeforeValidator(_texts(Exclusion.parse)),
    _list_of("gpu 17", "gpu 100..107", "tray 3", "host 3", "rack 12", "rack 12 tray 3", "leaf 7"),
]
Constraints = Annotated[
    tuple[Constraint, ...],
    BeforeValidator(_texts(Constraint.parse)),
    _list_of("tp within rack", "tp,cp within host", "pp stages whole racks", "dp along rails"),
]


class MapSection(BaseModel):
    """How ranks lie on the cluster's GPUs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    order: Order = Field(default=DEFAULT_ORDER, description="axes onto ranks, the innermost first")
    spares: Literal["gpus", "rails", "trays"] = Field(
        default="gpus", description="what a rack leaves out where not all of it takes ranks"
    )
    exclude: Exclusions = Field(default=(), description="what may not be used")
    require: Constraints = Field(default=(), description="what must not be split")


def map_request(section: MapSection) -> MapRequest:
    """The section as the topology takes it."""
    return MapRequest(section.order, Spares(section.spares), section.exclude, section.require)


def map_document(request: MapRequest) -> dict[str, object]:
    """The section as plain data, every default written out."""
    return {
        "order": [axis.value for axis in request.order],
        "spares": request.spares.value,
        "exclude": [str(each) for each in request.exclude],
        "require": [str(each) for each in request.require],
    }
