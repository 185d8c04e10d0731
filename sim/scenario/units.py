"""Quantities with their units: ``800 Gb/s``, ``186 GiB``, ``4096 tokens``.

A quantity is a decimal number, an SI or binary prefix and a unit; small ``b`` is a bit, capital ``B`` a byte.
The number is read exactly (as a fraction), and the result is a whole number of the base unit: bytes, bytes/s,
ns, tokens, flop/s, W. Where a text has two readings (``800G``) both are named, and neither is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from re import compile as compile_pattern
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Batch",
    "BatchUnit",
    "parse_batch",
    "parse_bytes",
    "parse_bytes_per_s",
    "parse_exp_per_s",
    "parse_flop_per_s",
    "parse_ns",
    "parse_tokens",
    "parse_watts",
    "show_bytes",
    "show_bytes_per_s",
    "show_exp_per_s",
    "show_flop_per_s",
    "show_ns",
]

_QUANTITY = compile_pattern(
    r"\s*([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?)\s*(\D.*?)?\s*"
)

_DECIMAL: Mapping[str, int] = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
}
_BINARY: Mapping[str, int] = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_PREFIXES: Mapping[str, int] = {**_DECIMAL, **_BINARY}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of quantity: its units, each with its factor to the base unit."""

    name: str
    base: str
    units: Mapping[str, Fraction]
    examples: str
    readings: tuple[str, ...]


def _prefixed(units: Mapping[str, Fraction], prefixes: Mapping[str, int]) -> dict[str, Fraction]:
    return {
        prefix + unit: factor * scale for unit, factor in units.items() for prefix, scale in prefixes.items()
    }


_BYTES = _Kind(
    "size", "bytes", _prefixed({"B": Fraction(1)}, _PREFIXES), "512 MB, 186 GiB", ("{number} {prefix}B",)
)
_RATE = _Kind(
    "rate",
    "bytes/s",
    _prefixed(
        {"B/s": Fraction(1), "b/s": Fraction(1, 8), "bit/s": Fraction(1, 8), "bps": Fraction(1, 8)}, _PREFIXES
    ),
    "800 Gb/s (bits), 3.35 TB/s (bytes)",
    ("'{number} {prefix}b/s' for bits", "'{number} {prefix}B/s' for bytes"),
)
_TIME = _Kind(
    "time",
    "ns",
    {
        "ns": Fraction(1),
        "us": Fraction(10**3),
        "\u00b5s": Fraction(10**3),
        "ms": Fraction(10**6),
        "s": Fraction(10**9),
        "min": Fraction(60 * 10**9),
        "h": Fraction(3600 * 10**9),
        "d": Fraction(86400 * 10**9),
    },
    "500 ns, 3.5 us, 2 h",
    ("{number} ns", "{number} us", "{number} ms", "{number} s"),
)
_TOKENS = _Kind(
    "number of tokens",
    "tokens",
    _prefixed({" tokens": Fraction(1), "tokens": Fraction(1), " token": Fraction(1)}, _PREFIXES),
    "4096 tokens, 4Mi tokens",
    ("{number}{prefix} tokens",),
)
_FLOP = _Kind(
    "compute rate",
    "flop/s",
    _prefixed(
        {"FLOP/s": Fraction(1), "flop/s": Fraction(1), "FLOPS": Fraction(1), "FLOPs/s": Fraction(1)}, _DECIMAL
    ),
    "2.5 PFLOP/s, 989 TFLOP/s",
    ("{number} {prefix}FLOP/s",),
)
_EXP = _Kind(
    "rate of exponentials",
    "exp/s",
    _prefixed({"exp/s": Fraction(1), "Exp/s": Fraction(1)}, _DECIMAL),
    "10.7 Texp/s",
    ("{number} {prefix}exp/s",),
)
_POWER = _Kind(
    "power", "W", _prefixed({"W": Fraction(1)}, _DECIMAL), "1400 W, 1.4 kW", ("{number} {prefix}W",)
)
_BATCH = _Kind(
    "batch",
    "sequences or tokens",
    _prefixed({" sequences": Fraction(1), "sequences": Fraction(1), " sequence": Fraction(1)}, _PREFIXES)
    | dict(_TOKENS.units),
    "1024 sequences, 4Mi tokens",
    ("'{number}{prefix} sequences'", "'{number}{prefix} tokens'"),
)


def _parse(text: object, kind: _Kind) -> tuple[Fraction, str]:
    """Value in the base unit, and the unit as written (one space before a word at most)."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise InvalidInputError(
            f"not a {kind.name}", got=repr(text), expected=f"a quantity like {kind.examples}"
        )
    written = str(text)
    match = _QUANTITY.fullmatch(written) if len(written) <= 100 else None
    if match is None:
        raise InvalidInputError(
            f"not a {kind.name}",
            got=repr(written[:60]),
            expected=f"a number and a unit, like {kind.examples}",
        )
    unit = " ".join((match.group(2) or "").split())
    # A word after a prefix may stand apart ("4Mi tokens") or after the number ("4096 tokens").
    factor = kind.units.get(unit) or kind.units.get(" " + unit)
    if factor is None:
        raise _unknown_unit(match.group(1), unit, kind)
    return Fraction(match.group(1)) * factor, unit


def _unknown_unit(number: str, unit: str, kind: _Kind) -> InvalidInputError:
    shown = repr(f"{number} {unit}".strip())
    readings = [reading.format(number=number, prefix=unit) for reading in kind.readings]
    if unit in _PREFIXES and readings:
        what = (
            "the unit is missing"
            if unit == "" or len(readings) == 1
            else f"{shown} has {len(readings)} readings"
        )
        return InvalidInputError(
            what,
            got=shown,
            expected=f"a quantity like {kind.examples}",
            hint=f"write {', or '.join(readings)}",
        )
    near = [
        name.strip() for name in kind.units if name.strip().lower() in {unit.lower(), unit.lower() + "/s"}
    ]
    return InvalidInputError(
        f"unknown unit for a {kind.name}",
        got=shown,
        expected=f"a quantity like {kind.examples}",
        hint=f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else None,
    )


def _whole(text: object, kind: _Kind) -> int:
    value, _ = _parse(text, kind)
    if value.denominator != 1:
        raise InvalidInputError(
            f"not a whole number of {kind.base}",
            got=repr(str(text)),
            expected=f"a multiple of one {kind.base}",
        )
    if not 0 <= value < 2**63:
        raise InvalidInputError(
            f"a {kind.name} out of range", got=repr(str(text)), expected=f"0 to 2^63-1 {kind.base}"
        )
    return value.numerator


def parse_bytes(text: object) -> int:
    """Read a size in bytes: ``512 MB``, ``186 GiB``.

    Examples
    --------
    >>> parse_bytes("1.5 KiB")
    1536
    """
    return _whole(text, _BYTES)


def parse_bytes_per_s(text: object) -> int:
    """Read a rate in bytes/s: ``800 Gb/s`` (bits) or ``3.35 TB/s`` (bytes).

    Examples
    --------
    >>> parse_bytes_per_s("800 Gb/s")
    100000000000
    """
    return _whole(text, _RATE)


def parse_ns(text: object) -> int:
    """Read a time in ns: ``500 ns``, ``3.5 us``, ``2 h``.

    Examples
    --------
    >>> parse_ns("3.5 us")
    3500
    """
    return _whole(text, _TIME)


def parse_tokens(text: object) -> int:
    """Read a number of tokens; a bare whole number is taken as tokens.

    Examples
    --------
    >>> parse_tokens("4Mi tokens"), parse_tokens(256)
    (4194304, 256)
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = f"{text} tokens"
    return _whole(text, _TOKENS)


def parse_flop_per_s(text: object) -> int:
    """Read a compute rate in flop/s: ``2.5 PFLOP/s``.

    Examples
    --------
    >>> parse_flop_per_s("989 TFLOP/s")
    989000000000000
    """
    return _whole(text, _FLOP)


def parse_exp_per_s(text: object) -> int:
    """Read a rate of exponentials: ``10.7 Texp/s``.

    Examples
    --------
    >>> parse_exp_per_s("10.7 Texp/s")
    10700000000000
    """
    return _whole(text, _EXP)


def parse_watts(text: object) -> int:
    """Read a power in W.

    Examples
    --------
    >>> parse_watts("1.4 kW")
    1400
    """
    return _whole(text, _POWER)


class BatchUnit(StrEnum):
    """What a global batch is counted in."""

    SEQUENCES = "sequences"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Batch:
    """A global batch as it was written."""

    count: int
    unit: BatchUnit


def parse_batch(text: object) -> Batch:
    """Read a global batch, in sequences or in tokens; a bare number has two readings and is refused.

    Examples
    --------
    >>> parse_batch("4Mi tokens")
    Batch(count=4194304, unit=<BatchUnit.TOKENS: 'tokens'>)
    """
    count = _whole(text, _BATCH)
    _, unit = _parse(text, _BATCH)
    return Batch(count, BatchUnit.TOKENS if "token" in unit else BatchUnit.SEQUENCES)


def _show(value: int, unit: str, steps: tuple[tuple[str, int], ...]) -> str:
    """Shortest exact text: the largest prefix that leaves at most three decimals, else the base unit."""
    for prefix, scale in steps:
        if value >= scale and value * 1000 % scale == 0:
            digits = f"{value // scale}.{value * 1000 // scale % 1000:03d}".rstrip("0").rstrip(".")
            return f"{digits} {prefix}{unit}"
    return f"{value} {unit}"


_DECIMAL_STEPS = tuple((prefix, scale) for prefix, scale in reversed([*_DECIMAL.items()]) if prefix)
_BINARY_STEPS = tuple(reversed([*_BINARY.items()]))


def show_bytes(value: int) -> str:
    """Write a size exactly, in binary units where they come out even, else in decimal ones.

    Examples
    --------
    >>> show_bytes(186 * 2**30), show_bytes(1_500_000)
    ('186 GiB', '1.5 MB')
    """
    binary = _show(value, "B", _BINARY_STEPS)
    decimal = _show(value, "B", _DECIMAL_STEPS)
    return binary if len(binary) <= len(decimal) + 1 else decimal


def show_bytes_per_s(value: int) -> str:
    """Write a rate exactly, in bytes/s."""
    return _show(value, "B/s", _DECIMAL_STEPS)


def show_flop_per_s(value: int) -> str:
    """Write a compute rate exactly."""
    return _show(value, "FLOP/s", _DECIMAL_STEPS)


def show_exp_per_s(value: int) -> str:
    """Write a rate of exponentials exactly."""
    return _show(value, "exp/s", _DECIMAL_STEPS)


def show_ns(value: int) -> str:
    """Write a time exactly, in the largest unit that leaves at most three decimals.

    Examples
    --------
    >>> show_ns(3500)
    '3.5 us'
    """
    return _show(value, "", (("s", 10**9), ("ms", 10**6), ("us", 10**3))) if value >= 1000 else f"{value} ns"
