"""Common instruction lines of a plan's text as columns, many at a time.

A line is common if it is an instruction as a writer writes it: no part, no braid, no name of more than 16
bytes, no variable of a REP. Each token of it is compared in full, as one number of its bytes; whatever is not
understood here is left to `exactmap.sim.plan.text`, line by line, and so are all errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.table import POOL_LETTERS
from exactmap.sim.plan.text import INDEX_MAX, NAME

__all__ = ["Lines", "lines_of"]

_Ints: TypeAlias = NDArray[np.integer[Any]]
_Flags: TypeAlias = NDArray[np.bool_]
_Keys: TypeAlias = NDArray[np.uint64]

_CHUNK_BYTES: Final = 1 << 18  # columns of its tokens fit a core's cache
_LF, _SPACE, _DOT, _SLASH, _AT = range(1, 6)
_WORD_BYTES: Final = 8
_NAME_BYTES: Final = 2 * _WORD_BYTES
_NAME_RE: Final = re.compile(NAME)

_ITEM, _BUCKET, _GROUP = 1, 2, 4  # forms of operands, as bits
_BIT: Final = {letter: 1 << place for place, letter in enumerate(POOL_LETTERS)}


def _separators() -> NDArray[np.uint8]:
    codes = np.zeros(256, dtype=np.uint8)
    for byte, code in zip(b"\n ./@", (_LF, _SPACE, _DOT, _SLASH, _AT), strict=True):
        codes[byte] = code
    return codes


def _rules() -> tuple[_Ints, _Flags, _Ints, _Ints]:
    """By kind code: forms of operands, whether a queue is named, slots that must and that may be named."""
    forms = np.zeros(len(KINDS), dtype=np.int8)
    named = np.zeros(len(KINDS), dtype=np.bool_)
    must = np.zeros(len(KINDS), dtype=np.int16)
    may = np.zeros(len(KINDS), dtype=np.int16)
    kinds: tuple[tuple[str, int, bool, str, str], ...] = (
        ("F RC I B W", _ITEM, False, "", "hawgk"),
        ("SF SB WS WR", _ITEM, True, "", ""),
        ("RF RB", _ITEM, True, "h", ""),
        ("LF LB WOFF WLD", _ITEM, False, "", ""),
        ("OFF", _ITEM, False, "o", ""),
        ("LD", _ITEM, False, "aw", ""),
        ("OPT PV UNDO FREE", _BUCKET, False, "", ""),
        ("ZERO", _BUCKET, False, "", "q"),
        ("RS AR", _BUCKET, True, "", ""),
        ("AG", _BUCKET, True, "p", ""),
        ("NORM CHK", _GROUP, True, "", ""),
        ("WC", _BUCKET | _GROUP, True, "", ""),
    )
    for words, form, has_queue, always, sometimes in kinds:
        for word in words.split():
            code = CODES[Op(word)]
            forms[code], named[code] = form, has_queue
            must[code] = sum(_BIT[letter] for letter in always)
            may[code] = must[code] | sum(_BIT[letter] for letter in sometimes)
    return forms, named, must, may


_SEPARATORS: Final = _separators()
_FORMS, _NAMED, _MUST, _MAY = _rules()
_COMMON: Final = [code for code in range(len(KINDS)) if _FORMS[code]]
_WORDS: Final = sorted((int.from_bytes(KINDS[code].value.encode(), "little"), code) for code in _COMMON)
_WORD_KEYS: Final = np.array([key for key, _ in _WORDS], dtype=np.uint64)
_WORD_CODES: Final = np.array([code for _, code in _WORDS], dtype=np.int8)
_PLACES: Final = np.full(256, len(POOL_LETTERS), dtype=np.int8)
_PLACES[list(POOL_LETTERS.encode())] = range(len(POOL_LETTERS))
_LENGTH_MASKS: Final = np.array([(1 << 8 * num) - 1 for num in range(_WORD_BYTES + 1)], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a text; rows of those that are not common hold nothing of use.

    Attributes
    ----------
    starts
        [n + 1] where each line begins; behind the last, where the text ends.
    common
        [n] whether the columns hold the line.
    op, stage, microbatch, slice, bucket, slots
        [n] as in `InstructionTable`.
    queue
        [n] place in `queues`, -1 for none.
    """

    starts: _Ints
    common: _Flags
    op: _Ints
    stage: _Ints
    microbatch: _Ints
    slice: _Ints
    bucket: _Ints
    queue: _Ints
    slots: _Ints
    queues: dict[str, int]


def lines_of(text: bytes) -> Lines:
    r"""All lines of a text of printable ASCII and LF that ends in LF, or is empty.

    Examples
    --------
    >>> lines = lines_of(b"F 3.4 h0 a1 w1\nFB{B 3.1|F 2.2}\n")
    >>> lines.common.tolist(), lines.microbatch.tolist()[0], lines.starts.tolist()
    ([True, False], 4, [0, 15, 31])
    """
    queues: dict[str, int] = {}
    padded = np.frombuffer(text + bytes(_NAME_BYTES), dtype=np.uint8)
    found: list[tuple[_Ints, ...]] = []
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + _CHUNK_BYTES) + 1 or text.index(b"\n", start) + 1
        found.append(_chunk(padded, start, end, queues))
        start = end
    if not found:
        found.append(_chunk(padded, 0, 0, queues))
    starts, common, op, stage, microbatch, cut, bucket, queue, slots = (
        np.concatenate(columns) for columns in zip(*found, strict=True)
    )
    return Lines(
        np.append(starts, len(text)),
        common.astype(np.bool_),
        op,
        stage,
        microbatch,
        cut,
        bucket,
        queue,
        slots,
        queues,
    )


def _chunk(padded: NDArray[np.uint8], start: int, end: int, queues: dict[str, int]) -> tuple[_Ints, ...]:
    """The columns of `Lines` for whole lines from `start` to `end`."""
    separators = _SEPARATORS[padded[start:end]]
    ends = np.flatnonzero(separators)
    kinds = np.append(separators[ends], [_LF] * 4)  # room to look ahead
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - begins
    begins += start
    keys = _keys(padded, begins, lengths)
    letters = padded[begins]
    letters[(letters < 0x61) | (letters > 0x7A)] = 0
    numbers = _numbers(keys, lengths, letters > 0)
    plain = np.append(np.where(letters == 0, numbers, -1), [-1] * 4)

    last = np.flatnonzero(kinds[: len(ends)] == _LF)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    place = np.minimum(np.searchsorted(_WORD_KEYS, keys[first]), len(_WORD_KEYS) - 1)
    op = _WORD_CODES[place]
    common = (_WORD_KEYS[place] == keys[first]) & (kinds[first] == _SPACE)

    # Operands: an item, a bucket, or nothing but the queue.
    after = kinds[first + 1]
    one, two, three = plain[first + 1], plain[first + 2], plain[first + 3]
    is_item, is_bucket = after == _DOT, after == _SLASH
    is_group = (after == _AT) & (np.append(lengths, [0, 0])[first + 1] == 0)
    form = is_item * _ITEM + is_bucket * _BUCKET + is_group * _GROUP
    common &= (form & _FORMS[op]) != 0
    sliced = is_item & (kinds[first + 2] == _DOT)
    common &= is_group | ((one >= 0) & (two >= 0) & (~sliced | (three >= 0)))
    operand = first + np.where(is_group, 1, 2) + sliced  # its last token

    # The queue, then slots.
    has_queue = kinds[operand] == _AT
    common &= has_queue == _NAMED[op]
    next_token = operand + 1 + has_queue
    num_slots = last - next_token + 1
    common &= (num_slots >= 0) & (num_slots <= len(POOL_LETTERS))
    common &= (kinds[next_token - 1] == _SPACE) | (num_slots == 0)
    queue = np.full(len(first), -1, dtype=np.int32)
    named = np.flatnonzero(common & has_queue)
    queue[named] = _queue_numbers(padded, begins, lengths, keys, operand[named] + 1, queues)
    common[named] &= queue[named] >= 0
    slots = np.full((len(first), len(POOL_LETTERS)), -1, dtype=np.int32)
    _fill_slots(slots, common, op, next_token, num_slots, (kinds, letters, numbers))
    return (
        begins[first],
        common,
        op,
        np.where(is_group, -1, one).astype(np.int32),
        np.where(is_item, two, -1).astype(np.int32),
        np.where(sliced, three, -1).astype(np.int32),
        np.where(is_bucket, two, -1).astype(np.int32),
        queue,
        slots,
    )


def _keys(padded: NDArray[np.uint8], begins: _Ints, lengths: _Ints) -> _Keys:
    """First eight bytes of each token as a number, the first byte the lowest; 0 behind its end."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WORD_BYTES)
    keys: _Keys = windows[begins].view("<u8")[:, 0]
    return keys & _LENGTH_MASKS[np.clip(lengths, 0, _WORD_BYTES)]


def _numbers(keys: _Keys, lengths: _Ints, has_letter: _Flags) -> _Ints:
    """The index that each token (behind its letter) writes, or -1."""
    digits = keys >> (8 * has_letter).astype(np.uint64)
    num = lengths - has_letter
    fits = (num >= 1) & (num <= 7)
    # Digits to the upper bytes, zeros in front of them.
    room = (8 * (_WORD_BYTES - np.where(fits, num, 1))).astype(np.uint64)
    low = (np.uint64(1) << room) - np.uint64(1)
    text = (digits << room) | (np.uint64(0x3030303030303030) & low)
    high_bits = np.uint64(0xF0F0F0F0F0F0F0F0)
    all_digits = (text & high_bits) == np.uint64(0x3030303030303030)
    all_digits &= ((text + np.uint64(0x0606060606060606)) & high_bits) == np.uint64(0x3030303030303030)
    value = text & np.uint64(0x0F0F0F0F0F0F0F0F)
    for mask, factor, shift in (
        (0x0F0F0F0F0F0F0F0F, 10 * (1 << 8) + 1, 8),
        (0x00FF00FF00FF00FF, 100 * (1 << 16) + 1, 16),
        (0x0000FFFF0000FFFF, 10000 * (1 << 32) + 1, 32),
    ):
        value = ((value & np.uint64(mask)) * np.uint64(factor)) >> np.uint64(shift)
    leading_zero = (num > 1) & ((digits & np.uint64(0xFF)) == np.uint64(0x30))
    right = fits & all_digits & ~leading_zero & (value <= np.uint64(INDEX_MAX))
    numbers: _Ints = np.where(right, value, np.uint64(0)).astype(np.int64) - ~right
    return numbers


def _queue_numbers(
    padded: NDArray[np.uint8],
    begins: _Ints,
    lengths: _Ints,
    keys: _Keys,
    tokens: _Ints,
    queues: dict[str, int],
) -> _Ints:
    """Numbers of the names that tokens are, new ones added; -1 for what is no name, or a long one."""
    low, length = keys[tokens], lengths[tokens]
    high = np.zeros_like(low)
    if (length > _WORD_BYTES).any():
        high = _keys(padded, begins[tokens] + _WORD_BYTES, length - _WORD_BYTES)
    mixed = low ^ (high * np.uint64(0x9E3779B97F4A7C15))
    _, one, back = np.unique(mixed, return_index=True, return_inverse=True)
    same = (low == low[one][back]) & (high == high[one][back]) & (length <= _NAME_BYTES)
    numbers = np.full(len(one), -1, dtype=np.int32)
    for number, token in enumerate(tokens[one].tolist()):
        start = int(begins[token])
        name = padded[start : start + int(lengths[token])].tobytes().decode("ascii", "replace")
        if _NAME_RE.fullmatch(name):
            numbers[number] = queues.setdefault(name, len(queues))
    return np.where(same, numbers[back], -1)


def _fill_slots(
    slots: _Ints,
    common: _Flags,
    op: _Ints,
    next_token: _Ints,
    num_slots: _Ints,
    tokens: tuple[_Ints, _Ints, _Ints],
) -> None:
    """Slots named from `next_token` on; `common` stays where they are those of the line's kind."""
    kinds, letters, numbers = tokens
    named = np.zeros(len(op), dtype=np.int16)
    before = np.full(len(op), -1, dtype=np.int8)
    for number in range(len(POOL_LETTERS)):
        rows = np.flatnonzero(common & (num_slots > number))
        if not len(rows):
            break
        token = next_token[rows] + number
        place = _PLACES[letters[token]]
        right = (place < len(POOL_LETTERS)) & (place > before[rows]) & (numbers[token] >= 0)
        right &= (kinds[token] == _SPACE) | (num_slots[rows] == number + 1)
        common[rows] = right
        rows, place, token = rows[right], place[right], token[right]
        slots[rows, place] = numbers[token]
        named[rows] |= np.left_shift(1, place, dtype=np.int16)
        before[rows] = place
    common &= (named & ~_MAY[op] == 0) & (named & _MUST[op] == _MUST[op])
