"""One instruction as text, both ways: the words of `docs/reference/plan-format.md`, section 6.

`parse_instruction` knows what a writer writes (plain numbers within bounds) and is made for speed; everything
else, errors among it, is looked at again by the reader with `matches_grammar`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from exactmap.sim.plan.instruction import WORK, Instruction, Op

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "INDEX_MAX",
    "INSTRUCTION_WORDS",
    "INT",
    "INT_MAX",
    "NAME",
    "NUM",
    "PROGRAM_NAME",
    "VARIABLE",
    "format_instruction",
    "format_num",
    "index_fields",
    "matches_grammar",
    "parse_instruction",
]

INDEX_MAX: Final = 1048575
INT_MAX: Final = 9223372036854775807

INT: Final = r"(?:0|[1-9][0-9]*)"
NUM: Final = rf"{INT}(?:\.[0-9]+)?(?:e-?{INT})?"
NAME: Final = r"[a-z][a-z0-9_]{0,31}"
PROGRAM_NAME: Final = r"[A-Za-z][A-Za-z0-9_]{0,31}"
AFFINE: Final = rf"\((?:{INT})?[a-z](?:[+-]{INT})?\)"
VARIABLE: Final = re.compile(rf"\(({AFFINE})%({INT})\)|({AFFINE})")
"""A microbatch or slot number inside a REP: affine and modulus, or affine alone."""

INSTRUCTION_WORDS: Final = frozenset({op.value for op in Op if op is not Op.FB} | {"REP", "}"})
"""First words of a body's lines; a braid's word begins with ``FB{`` instead."""

_SIMPLE_WORK: Final = "F RC I B W"


def _grammar(value: str, index: str) -> dict[str, str]:
    """Pattern of what follows the first word, for each word, with `value` for microbatches and slots."""
    item = rf"{index}\.{value}(?:\.{index})?(?::{NAME})?"
    bucket = rf"{index}/{index}"
    slots = "".join(rf"(?: {letter}{value})?" for letter in "hawgk")
    passed = rf"[FIB] {item}@{NAME}"
    patterns: dict[str, str] = dict.fromkeys(_SIMPLE_WORK.split(), item + slots)
    patterns |= dict.fromkeys(["OPT", "PV", "UNDO", "FREE"], bucket)
    patterns |= dict.fromkeys(["SF", "SB", "WS", "WR"], rf"{item}@{NAME}")
    patterns |= dict.fromkeys(["RF", "RB"], rf"{item}@{NAME} h{value}")
    patterns |= dict.fromkeys(["RS", "AR"], rf"{bucket}@{NAME}")
    patterns |= dict.fromkeys(["A2A_D", "A2A_C", "KV"], passed)
    patterns |= dict.fromkeys(["NORM", "CHK"], rf"@{NAME}")
    patterns |= dict.fromkeys(["WOFF", "WLD", "LF", "LB"], item)
    patterns |= {
        "ZERO": rf"{bucket}(?: q{value})?",
        "AG": rf"{bucket}@{NAME} p{value}",
        "OFF": rf"{item} o{value}",
        "LD": rf"{item} a{value} w{value}",
        "WC": rf"(?:{bucket}@{NAME}|{passed}|@{NAME})",
        "MARK": NAME,
    }
    return patterns


def _line_pattern() -> re.Pattern[str]:
    value = rf"(?:{INT}|{AFFINE}|\({AFFINE}%{INT}\))"
    patterns = _grammar(value, INT)
    works = "|".join(f"{word} {patterns[word]}" for word in _SIMPLE_WORK.split())
    braid = rf"FB\{{(?:{works})(?:\|(?:{works}))*\}}"
    return re.compile("|".join([*(f"{word} {rest}" for word, rest in patterns.items()), braid, "END"]))


_LINE: Final = _line_pattern()
_NAMES: Final = re.compile(rf"[:@]{NAME}|A2A_[DC]")
_DIGITS: Final = re.compile(r"[0-9]+")


def matches_grammar(line: str) -> bool:
    """Whether `line` is an instruction by its grammar, whatever its numbers; REP forms count as numbers."""
    return _LINE.fullmatch(line) is not None


def index_fields(line: str) -> list[int]:
    """All numbers of an instruction that matches the grammar."""
    if line.startswith("MARK "):
        return []
    return [int(digits) for digits in _DIGITS.findall(_NAMES.sub("", line))]


# Numbers of at most INDEX_MAX, spelt out so that a match needs no further look.
_INDEX: Final = (
    r"(0|[1-9][0-9]{0,5}|10[0-3][0-9]{4}|104[0-7][0-9]{3}|1048[0-4][0-9]{2}|10485[0-6][0-9]|104857[0-5])"
)
_ITEM: Final = rf"{_INDEX}\.{_INDEX}(?:\.{_INDEX})?(?::({NAME}))?"
_BUCKET: Final = rf"{_INDEX}/{_INDEX}"
_PLAIN: Final = _INDEX.replace("(", "(?:", 1)
_SLOTS: Final = "(" + "".join(rf"(?: {letter}{_PLAIN})?" for letter in "hawgk") + ")"

_WORK_RE: Final = re.compile(_ITEM + _SLOTS)
_ITEM_RE: Final = re.compile(_ITEM)
_MESSAGE_RE: Final = re.compile(rf"{_ITEM}@({NAME})")
_RECEIVE_RE: Final = re.compile(rf"{_ITEM}@({NAME})( h{_PLAIN})")
_BUCKET_RE: Final = re.compile(_BUCKET)
_REDUCE_RE: Final = re.compile(rf"{_BUCKET}@({NAME})")
_GATHER_RE: Final = re.compile(rf"{_BUCKET}@({NAME})( p{_PLAIN})")
_ZERO_RE: Final = re.compile(rf"{_BUCKET}((?: q{_PLAIN})?)")
_PASSED_RE: Final = re.compile(rf"([FIB]) {_ITEM}@({NAME})")
_OFF_RE: Final = re.compile(rf"{_ITEM}( o{_PLAIN})")
_LD_RE: Final = re.compile(rf"{_ITEM}( a{_PLAIN} w{_PLAIN})")
_GROUP_RE: Final = re.compile(rf"@({NAME})")
_NAME_RE: Final = re.compile(NAME)

_Slots = tuple[tuple[str, int], ...]
_slot_texts: dict[str, _Slots] = {"": ()}


def _slots(text: str) -> _Slots:
    """Slots of a text as ``" h0 a1"``; texts repeat, so they are remembered."""
    slots = _slot_texts.get(text)
    if slots is None:
        slots = tuple((word[0], int(word[1:])) for word in text.split())
        if len(_slot_texts) < 1 << 16:
            _slot_texts[text] = slots
    return slots


def _parse_work(op: Op, rest: str) -> Instruction | None:
    match = _WORK_RE.fullmatch(rest)
    if match is None:
        return None
    stage, microbatch, cut, part, slots = match.groups()
    return Instruction(
        op, int(stage), int(microbatch), -1 if cut is None else int(cut), part or "", slots=_slots(slots)
    )


def _parse_item(op: Op, rest: str) -> Instruction | None:
    match = _ITEM_RE.fullmatch(rest)
    if match is None:
        return None
    stage, microbatch, cut, part = match.groups()
    return Instruction(op, int(stage), int(microbatch), -1 if cut is None else int(cut), part or "")


def _parse_message(op: Op, rest: str) -> Instruction | None:
    match = _MESSAGE_RE.fullmatch(rest)
    if match is None:
        return None
    stage, microbatch, cut, part, queue = match.groups()
    return Instruction(
        op, int(stage), int(microbatch), -1 if cut is None else int(cut), part or "", -1, queue
    )


def _parse_receive(op: Op, rest: str) -> Instruction | None:
    match = _RECEIVE_RE.fullmatch(rest)
    if match is None:
        return None
    stage, microbatch, cut, part, queue, slots = match.groups()
    return Instruction(
        op,
        int(stage),
        int(microbatch),
        -1 if cut is None else int(cut),
        part or "",
        -1,
        queue,
        slots=_slots(slots),
    )


def _parse_bucket(op: Op, rest: str) -> Instruction | None:
    match = _BUCKET_RE.fullmatch(rest)
    return None if match is None else Instruction(op, int(match[1]), bucket=int(match[2]))


def _parse_reduce(op: Op, rest: str) -> Instruction | None:
    match = _REDUCE_RE.fullmatch(rest)
    return None if match is None else Instruction(op, int(match[1]), bucket=int(match[2]), queue=match[3])


def _parse_gather(op: Op, rest: str) -> Instruction | None:
    match = _GATHER_RE.fullmatch(rest)
    if match is None:
        return None
    return Instruction(op, int(match[1]), bucket=int(match[2]), queue=match[3], slots=_slots(match[4]))


def _parse_zero(op: Op, rest: str) -> Instruction | None:
    match = _ZERO_RE.fullmatch(rest)
    if match is None:
        return None
    return Instruction(op, int(match[1]), bucket=int(match[2]), slots=_slots(match[3]))


def _parse_passed(op: Op, rest: str) -> Instruction | None:
    match = _PASSED_RE.fullmatch(rest)
    if match is None:
        return None
    phase, stage, microbatch, cut, part, queue = match.groups()
    return Instruction(
        op,
        int(stage),
        int(microbatch),
        -1 if cut is None else int(cut),
        part or "",
        queue=queue,
        phase=phase,
    )


def _parse_off(op: Op, rest: str) -> Instruction | None:
    match = (_OFF_RE if op is Op.OFF else _LD_RE).fullmatch(rest)
    if match is None:
        return None
    stage, microbatch, cut, part, slots = match.groups()
    return Instruction(
        op, int(stage), int(microbatch), -1 if cut is None else int(cut), part or "", slots=_slots(slots)
    )


def _parse_group(op: Op, rest: str) -> Instruction | None:
    match = _GROUP_RE.fullmatch(rest)
    return None if match is None else Instruction(op, queue=match[1])


def _parse_wait_group(op: Op, rest: str) -> Instruction | None:
    if rest.startswith("@"):
        return _parse_group(op, rest)
    if rest[:1] in {"F", "I", "B"}:
        return _parse_passed(op, rest)
    return _parse_reduce(op, rest)


def _parse_mark(op: Op, rest: str) -> Instruction | None:
    return None if _NAME_RE.fullmatch(rest) is None else Instruction(op, name=rest)


_PARSERS: Final[dict[str, tuple[Op, Callable[[Op, str], Instruction | None]]]] = {
    **{op.value: (op, _parse_work) for op in (Op.F, Op.RC, Op.I, Op.B, Op.W)},
    **{op.value: (op, _parse_bucket) for op in (Op.OPT, Op.PV, Op.UNDO, Op.FREE)},
    **{op.value: (op, _parse_message) for op in (Op.SF, Op.SB, Op.WS, Op.WR)},
    **{op.value: (op, _parse_receive) for op in (Op.RF, Op.RB)},
    **{op.value: (op, _parse_reduce) for op in (Op.RS, Op.AR)},
    **{op.value: (op, _parse_passed) for op in (Op.A2A_D, Op.A2A_C, Op.KV)},
    **{op.value: (op, _parse_group) for op in (Op.NORM, Op.CHK)},
    **{op.value: (op, _parse_item) for op in (Op.WOFF, Op.WLD, Op.LF, Op.LB)},
    **{op.value: (op, _parse_off) for op in (Op.OFF, Op.LD)},
    "ZERO": (Op.ZERO, _parse_zero),
    "AG": (Op.AG, _parse_gather),
    "WC": (Op.WC, _parse_wait_group),
    "MARK": (Op.MARK, _parse_mark),
}


def parse_instruction(line: str) -> Instruction | None:
    """Read one instruction other than END.

    Parameters
    ----------
    line
        The line without its LF, with plain numbers.

    Returns
    -------
    Instruction | None
        None if the line is anything else, or a number is beyond its bounds.

    Examples
    --------
    >>> parse_instruction("RF 4.7@f34 h2").slot("h")
    2
    """
    word, _, rest = line.partition(" ")
    entry = _PARSERS.get(word)
    if entry is not None:
        return entry[1](entry[0], rest)
    if word.startswith("FB{") and line.endswith("}"):
        members: list[Instruction] = []
        for member in line[3:-1].split("|"):
            parsed = parse_instruction(member)
            if parsed is None or parsed.op not in WORK or parsed.microbatch < 0:
                return None
            members.append(parsed)
        return Instruction(Op.FB, members=tuple(members))
    return None


def _format_item(instruction: Instruction) -> str:
    cut = "" if instruction.slice < 0 else f".{instruction.slice}"
    part = f":{instruction.part}" if instruction.part else ""
    return f"{instruction.stage}.{instruction.microbatch}{cut}{part}"


def format_instruction(instruction: Instruction) -> str:
    """The instruction's line, without LF.

    Examples
    --------
    >>> format_instruction(Instruction(Op.F, 3, 4, slots=(("h", 0), ("a", 1), ("w", 1))))
    'F 3.4 h0 a1 w1'
    """
    op = instruction.op
    if op is Op.FB:
        return "FB{" + "|".join(format_instruction(member) for member in instruction.members) + "}"
    words = [op.value]
    if instruction.phase:
        words.append(instruction.phase)
    operand = ""
    if instruction.bucket >= 0:
        operand = f"{instruction.stage}/{instruction.bucket}"
    elif instruction.stage >= 0:
        operand = _format_item(instruction)
    if instruction.queue:
        operand += f"@{instruction.queue}"
    if operand or instruction.name:
        words.append(operand or instruction.name)
    words.extend(f"{letter}{index}" for letter, index in instruction.slots)
    return " ".join(words)


def format_num(value: float) -> str:
    """Shortest text of the grammar's `num` that gives the same binary64 back; plain digits win a tie.

    Parameters
    ----------
    value
        Finite and not negative.

    Raises
    ------
    ValueError
        If the grammar has no text for the value.

    Examples
    --------
    >>> [format_num(x) for x in (0.0, 1.0, 0.95, 1e-05, 10000.0, 1.5e300)]
    ['0', '1', '0.95', '1e-5', '1e4', '1.5e300']
    """
    if not 0 <= value < float("inf"):
        raise ValueError(f"a plan holds no such number: {value!r}")
    mantissa, _, exponent = repr(float(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or "0") - len(fraction)
    stripped = digits.rstrip("0")
    power += len(digits) - len(stripped)
    if not stripped:
        return "0"
    if power >= 0:
        plain = stripped + "0" * power
    elif -power < len(stripped):
        plain = f"{stripped[:power]}.{stripped[power:]}"
    else:
        plain = "0." + "0" * (-power - len(stripped)) + stripped
    shift = power + len(stripped) - 1
    scientific = stripped[0] + (f".{stripped[1:]}" if len(stripped) > 1 else "") + f"e{shift}"
    return min(plain, scientific, key=len)
