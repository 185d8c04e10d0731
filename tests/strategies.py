"""Hypothesis strategies that several property tests share.

`plan_files` draws valid plans of the corpus; `mutated_plans` breaks them in the ways in which files break:
bytes changed, cut out or put in, lines swapped, dropped, doubled, digits and words changed. Most of them get
a fitting body hash again, so that the later checks are reached. `rearranged_plans` draws texts that stay a
plan's: instructions moved, numbers and queues changed.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from hypothesis import strategies as st

__all__ = ["CORPUS", "VALID", "mutated_plans", "plan_files", "rearranged_plans", "resealed"]

CORPUS = Path(__file__).parent / "golden" / "plans"
VALID = tuple(path.read_bytes() for path in sorted((CORPUS / "valid").glob("*.plan")))
_ALL_PLANS = tuple(path.read_bytes() for path in sorted(CORPUS.glob("*valid/*.plan")))
_INSTRUCTION = re.compile(rb"(FB\{|[A-Z][A-Z0-9_]* )(?!i=)")
_NUMBER = re.compile(rb"[0-9]+")
_QUEUE = re.compile(rb"@[a-z0-9_]+")
_ALPHABET = b"0123456789(){}@:./|%+-=,> hawgkpqoijFBIWSR\n\r\x00\xff"


def plan_files() -> st.SearchStrategy[bytes]:
    """Bytes of a valid plan of the corpus."""
    return st.sampled_from(VALID)


def resealed(data: bytes) -> bytes:
    """The file with the hash of the body that it has."""
    first, newline, rest = data.partition(b"\n")
    _, second, body = rest.partition(b"\n")
    if not newline or not second:
        return data
    return first + b"\nbody sha256=" + hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body


@st.composite
def mutated_plans(draw: st.DrawFn) -> bytes:
    """A valid plan with one to three changes; its hash is right in nine of ten."""
    data = draw(plan_files())
    for _ in range(draw(st.integers(1, 3))):
        data = _mutated(draw, data)
    return resealed(data) if draw(st.integers(0, 9)) else data


def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = st.integers(0, len(lines) - 1)
    match draw(st.sampled_from(["byte", "cut", "insert", "swap", "drop", "double", "digit", "word"])):
        case "byte" | "cut" | "insert" as kind:
            at = draw(st.integers(0, len(data)))
            removed = {"byte": 1, "cut": draw(st.integers(1, 6)), "insert": 0}[kind]
            added = (
                b""
                if kind == "cut"
                else bytes(draw(st.lists(st.sampled_from(_ALPHABET), min_size=1, max_size=3)))
            )
            return data[:at] + added + data[at + removed :]
        case "swap":
            one, other = draw(place), draw(place)
            lines[one], lines[other] = lines[other], lines[one]
        case "drop":
            del lines[draw(place)]
        case "double":
            lines.insert(draw(place), lines[draw(place)])
        case "digit":
            digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
            at = draw(st.sampled_from(digits)) if digits else 0
            return data[:at] + bytes([draw(st.integers(0x30, 0x39))]) + data[at + 1 :]
        case _:
            words = lines[draw(place)].split(b" ")
            target = draw(place)
            kept = lines[target].split(b" ")
            kept[draw(st.integers(0, len(kept) - 1))] = draw(st.sampled_from(words))
            lines[target] = b" ".join(kept)
    return b"\n".join(lines)


@st.composite
def rearranged_plans(draw: st.DrawFn, plans: tuple[bytes, ...] = _ALL_PLANS) -> bytes:
    """A plan (of the corpus) whose text stays a plan's: instructions moved, numbers and queues changed."""
    lines = draw(st.sampled_from(plans)).split(b"\n")
    for _ in range(draw(st.integers(1, 2))):
        _rearrange(draw, lines)
    return resealed(b"\n".join(lines))


def _rearrange(draw: st.DrawFn, lines: list[bytes]) -> None:
    body = [index for index, line in enumerate(lines) if _INSTRUCTION.match(line)]
    if not body:
        return
    at = draw(st.sampled_from(body))
    match draw(st.sampled_from(["move", "swap", "drop", "double", "number", "number", "declare", "queue"])):
        case "move":
            line = lines.pop(at)
            lines.insert(min(max(at + draw(st.integers(-8, 8)), body[0]), body[-1]), line)
        case "swap":
            other = draw(st.sampled_from(body))
            lines[at], lines[other] = lines[other], lines[at]
        case "drop":
            del lines[at]
        case "double":
            lines.insert(draw(st.sampled_from(body)), lines[at])
        case "queue":
            other = draw(st.sampled_from(body))
            taken = _QUEUE.search(lines[other])
            if taken is not None:
                lines[at] = _QUEUE.sub(taken[0], lines[at])
        case kind:
            if kind == "declare":
                at = draw(st.integers(min(2, len(lines) - 1), len(lines) - 1))
            _change_number(draw, lines, at)


def _change_number(draw: st.DrawFn, lines: list[bytes], at: int) -> None:
    numbers = list(_NUMBER.finditer(lines[at]))
    if numbers:
        found = draw(st.sampled_from(numbers))
        changed = max(0, int(found[0]) + draw(st.sampled_from([-64, -2, -1, 1, 2, 64])))
        lines[at] = lines[at][: found.start()] + str(changed).encode() + lines[at][found.end() :]
