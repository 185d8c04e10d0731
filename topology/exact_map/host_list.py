"""Host names in Slurm's short form: ``node[001-018,020]``, both ways, order kept.

A range keeps the width of its first number: ``[08-10]`` is 08, 09, 10 and ``[8-10]`` is 8, 9, 10. Several
brackets in a name multiply, the last counting fastest. Source: slurm.schedmd.com, "Host list expressions"
(``scontrol show hostlist`` and ``hostnames``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from exactmap.errors import InvalidInputError, Place

__all__ = ["MAX_HOSTS", "compress_hosts", "default_hosts", "expand_hosts"]

MAX_HOSTS = 2**20
_WORD = re.compile(r"(?:[^\[\],\s]|\[[^\[\]]*\])+")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_RANGE = re.compile(r"(\d{1,12})(?:-(\d{1,12}))?")
_NUMBERED = re.compile(r"(.*?)(\d{1,12})(\D*)")


def expand_hosts(text: str, where: Place | None = None) -> list[str]:
    """Names that a host list stands for.

    Parameters
    ----------
    text
        The list.
    where
        Its place, for messages.

    Raises
    ------
    InvalidInputError
        If it is no host list, or has more than `MAX_HOSTS` names.

    Examples
    --------
    >>> expand_hosts("node[008-010,12],login1")
    ['node008', 'node009', 'node010', 'node12', 'login1']
    >>> expand_hosts("r[1-2]n[0-1]")
    ['r1n0', 'r1n1', 'r2n0', 'r2n1']
    """
    names: list[str] = []
    rest = text.strip()
    while rest:
        word = _WORD.match(rest)
        if word is None:
            raise _bad(text, where, f"near {rest[:20]!r}")
        parts = re.split(r"\[([^\[\]]*)\]", word[0])
        choices = [
            [part] if number % 2 == 0 else _numbers(part, text, where) for number, part in enumerate(parts)
        ]
        num = 1
        for choice in choices:
            num *= len(choice)
        if len(names) + num > MAX_HOSTS:
            raise _bad(text, where, f"more than {MAX_HOSTS:,} names")
        found = ["".join(chosen) for chosen in product(*choices)]
        if any(_NAME.fullmatch(name) is None for name in found):
            raise _bad(text, where, repr(word[0])[:60])
        names += found
        rest = rest[word.end() :]
        if rest and not rest.startswith(","):
            raise _bad(text, where, f"near {rest[:20]!r}")
        if rest == ",":
            raise _bad(text, where, "a comma at the end")
        rest = rest[1:]
    return names


def compress_hosts(names: Sequence[str]) -> str:
    """The short form of names, which expands to them in the same order.

    Examples
    --------
    >>> compress_hosts(["node008", "node009", "node010", "node12", "login1"])
    'node[008-010,12],login1'
    """
    return ",".join(_words(names))


def default_hosts(num: int) -> list[str]:
    """Names for hosts that have none.

    Examples
    --------
    >>> default_hosts(11)[-1]
    'node10'
    """
    width = len(str(max(num - 1, 0)))
    return [f"node{host:0{width}}" for host in range(num)]


def _numbers(text: str, whole: str, where: Place | None) -> list[str]:
    out: list[str] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise _bad(whole, where, f"[{text[:40]}]")
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first) or int(last) - int(first) >= MAX_HOSTS:
            raise _bad(whole, where, f"[{part}]")
        out += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return out


def _words(names: Iterable[str]) -> Iterator[str]:
    """One word for names that stand together and differ in their last number alone."""
    ends: tuple[str, str] | None = None
    ranges: list[list[str]] = []
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found is None:
            yield from _word(ends, ranges)
            ends, ranges = None, []
            yield name
            continue
        prefix, digits, suffix = found.groups()
        if ends != (prefix, suffix):
            yield from _word(ends, ranges)
            ends, ranges = (prefix, suffix), []
        if ranges and digits == str(int(ranges[-1][-1]) + 1).zfill(len(ranges[-1][0])):
            ranges[-1][1:] = [digits]
        else:
            ranges.append([digits])
    yield from _word(ends, ranges)


def _word(ends: tuple[str, str] | None, ranges: list[list[str]]) -> Iterator[str]:
    if ends is None:
        return
    prefix, suffix = ends
    if len(ranges) == 1 and len(ranges[0]) == 1:
        yield f"{prefix}{ranges[0][0]}{suffix}"
    else:
        yield f"{prefix}[{','.join('-'.join(each) for each in ranges)}]{suffix}"


def _bad(text: str, where: Place | None, got: str) -> InvalidInputError:
    del text
    return InvalidInputError(
        "not a host list", where=where, got=got, expected="names such as node[001-018,020] or login1"
    )
