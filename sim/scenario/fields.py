"""Types of a scenario's fields: quantities with their units, and choices that a search may make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar, cast

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.units import (
    Batch,
    parse_batch,
    parse_bytes,
    parse_bytes_per_s,
    parse_exp_per_s,
    parse_flop_per_s,
    parse_ns,
    parse_tokens,
    parse_watts,
)
from exactmap.sim.schedules.registry import find_schedule

__all__ = [
    "BatchSize",
    "Bytes",
    "BytesPerS",
    "Choice",
    "Delay",
    "ExpPerS",
    "FlopPerS",
    "MemorySize",
    "Ns",
    "ReplicaChoice",
    "ScheduleChoice",
    "Tokens",
    "Watts",
    "ZeroChoice",
    "checked",
]

_T = TypeVar("_T")
MAX_DELAY_NS = 10**9


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


def _positive(parse: Callable[[object], int]) -> Callable[[object], int]:
    """What divides a size or is divided by cannot be zero."""

    def read(value: object) -> int:
        found = parse(value)
        if found == 0:
            raise InvalidInputError("must be positive", got=repr(value), expected="more than 0")
        return found

    return read


def _delay(value: object) -> int:
    """A time that hardware takes; a bound keeps sums of many of them in 64 bits."""
    found = parse_ns(value)
    if found > MAX_DELAY_NS:
        raise InvalidInputError("a delay out of range", got=repr(value), expected="at most 1 s")
    return found


def _quantity(text: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": text, "examples": list(examples)})


Bytes = Annotated[
    int, BeforeValidator(checked(parse_bytes)), _quantity("size with its unit", "186 GiB", "512 MB")
]
BytesPerS = Annotated[
    int,
    BeforeValidator(checked(_positive(parse_bytes_per_s))),
    _quantity("rate; b is bit, B is byte", "800 Gb/s", "3.35 TB/s"),
]
MemorySize = Annotated[
    int, BeforeValidator(checked(_positive(parse_bytes))), _quantity("size with its unit", "186 GiB")
]
FlopPerS = Annotated[
    int, BeforeValidator(checked(_positive(parse_flop_per_s))), _quantity("compute rate", "2.5 PFLOP/s")
]
ExpPerS = Annotated[
    int, BeforeValidator(checked(parse_exp_per_s)), _quantity("rate of exponentials", "10.7 Texp/s")
]
Ns = Annotated[int, BeforeValidator(checked(parse_ns)), _quantity("time with its unit", "3.5 us", "2 h")]
Delay = Annotated[
    int, BeforeValidator(checked(_delay)), _quantity("time with its unit, at most 1 s", "3.5 us", "150 ns")
]
Watts = Annotated[int, BeforeValidator(checked(parse_watts)), _quantity("power", "1400 W")]
Tokens = Annotated[
    int,
    BeforeValidator(checked(parse_tokens)),
    WithJsonSchema(
        {"type": ["string", "integer"], "description": "tokens", "examples": ["4096 tokens", 4096]}
    ),
]
BatchSize = Annotated[
    Batch, BeforeValidator(checked(parse_batch)), _quantity("global batch", "1024 sequences", "4Mi tokens")
]


def _choice(value: object) -> tuple[int, ...] | None:
    """One whole number, a list of them, or ``auto`` (None)."""
    if value == "auto":
        return None
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, int) and not isinstance(entry, bool) for entry in entries):
        raise InvalidInputError(
            "wrong value", got=repr(value)[:80], expected="a whole number, a list of them, or auto"
        )
    numbers = cast(list[int], entries)
    if min(numbers) < 1:
        raise InvalidInputError("size must be positive", got=str(min(numbers)), expected="at least 1")
    if len(set(numbers)) != len(numbers):
        raise InvalidInputError("a value stands twice in the list", got=str(numbers))
    return tuple(numbers)


def _replicas(value: object) -> tuple[int, ...] | str | None:
    """As `_choice`, or ``all``."""
    if isinstance(value, str) and value not in {"all", "auto"}:
        raise InvalidInputError(
            "wrong value",
            got=repr(value)[:80],
            expected="a whole number, a list of them, auto (the most that fit) or all (all that fit)",
        )
    return "all" if value == "all" else _choice(value)


_ZERO_STAGES = (0, 1)


def _zero(value: object) -> tuple[int, ...] | None:
    """ZeRO stages: 0, 1, both, or ``auto`` (None)."""
    if value == "auto":
        return None
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    known = [entry for entry in entries if type(entry) is int and entry in _ZERO_STAGES]
    if not entries or len(known) != len(entries):
        raise InvalidInputError(
            "wrong value",
            got=repr(value)[:80],
            expected="0, 1, [0, 1] or auto",
            hint="plans know no sharing of the optimizer's state (0) and sharing of it (1)",
        )
    if len(set(known)) != len(known):
        raise InvalidInputError("a value stands twice in the list", got=str(known))
    return tuple(known)


def _schedules(value: object) -> tuple[str, ...] | None:
    """One schedule, a list of them, or ``auto`` (None)."""
    if value == "auto":
        return None
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise InvalidInputError(
            "wrong value", got=repr(value)[:80], expected="a schedule's name, a list, or auto"
        )
    names = cast(list[str], entries)
    return tuple(find_schedule(name).name for name in names)


_WHOLE: dict[str, object] = {"type": "integer", "minimum": 1}
Choice = Annotated[
    tuple[int, ...] | None,
    BeforeValidator(checked(_choice)),
    WithJsonSchema({"anyOf": [_WHOLE, {"type": "array", "items": _WHOLE, "minItems": 1}, {"const": "auto"}]}),
]
ReplicaChoice = Annotated[
    tuple[int, ...] | Literal["all"] | None,
    BeforeValidator(checked(_replicas)),
    WithJsonSchema(
        {
            "anyOf": [
                _WHOLE,
                {"type": "array", "items": _WHOLE, "minItems": 1},
                {"const": "auto"},
                {"const": "all"},
            ]
        }
    ),
]
_STAGE: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": 1}
ZeroChoice = Annotated[
    tuple[int, ...] | None,
    BeforeValidator(checked(_zero)),
    WithJsonSchema({"anyOf": [_STAGE, {"type": "array", "items": _STAGE, "minItems": 1}, {"const": "auto"}]}),
]
ScheduleChoice = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(checked(_schedules)),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
