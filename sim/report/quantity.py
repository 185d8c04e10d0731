"""Quantities for people: times, bytes, shares, with a unit and three significant digits."""

from __future__ import annotations

__all__ = ["show_bytes", "show_count", "show_number", "show_rate", "show_share", "show_time"]


def show_time(ns: float) -> str:
    """Nanoseconds in the unit that reads best.

    Examples
    --------
    >>> show_time(9_411_000_000), show_time(1_500), show_time(12)
    ('9.41 s', '1.50 us', '12 ns')
    """
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(ns) >= scale:
            return f"{_three(ns / scale)} {unit}"
    return f"{ns:.0f} ns"


def show_bytes(num_bytes: float) -> str:
    """Bytes in binary units.

    Examples
    --------
    >>> show_bytes(3 * 2**30), show_bytes(100)
    ('3.00 GiB', '100 B')
    """
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(num_bytes) >= 2**power:
            return f"{_three(num_bytes / 2**power)} {unit}"
    return f"{num_bytes:.0f} B"


def show_count(number: float) -> str:
    """A count in decimal thousands.

    Examples
    --------
    >>> show_count(9_900_000_000_000), show_count(512)
    ('9.90T', '512')
    """
    for scale, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale:
            return f"{_three(number / scale)}{unit}"
    return f"{number:.0f}"


def show_number(number: int, noun: str) -> str:
    """How many there are of something.

    Examples
    --------
    >>> show_number(1, "rack"), show_number(3056, "rack")
    ('1 rack', '3,056 racks')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show_rate(bytes_per_s: float) -> str:
    """A rate in decimal bytes/s, four digits at most: rates of links are exact.

    Examples
    --------
    >>> show_rate(50e9), show_rate(1e11 / 3)
    ('50 GB/s', '33.33 GB/s')
    """
    for unit, scale in (("PB/s", 1e15), ("TB/s", 1e12), ("GB/s", 1e9)):
        if bytes_per_s >= scale:
            return f"{bytes_per_s / scale:.4g} {unit}"
    return f"{bytes_per_s / 1e6:.4g} MB/s"


def show_share(share: float) -> str:
    """A share of 1 as percent.

    Examples
    --------
    >>> show_share(0.0415)
    '4.2 %'
    """
    return f"{100 * share:.1f} %"


def _three(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
