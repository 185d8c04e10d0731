"""The trace as a file: tab-separated text, written whole or not at all, read strictly.

Form: `docs/reference/trace.md`, section 1.
"""

from __future__ import annotations

from re import ASCII, fullmatch
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes, write_atomically
from exactmap.sim.engine.encoded import KINDS, POST_KINDS, WORK_KINDS, Ints
from exactmap.sim.engine.trace import TRACE_COLUMNS, TRACE_VERSION, Trace, kind_of_text
from exactmap.sim.plan.instruction import Op

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["format_trace", "parse_trace", "read_trace", "write_trace"]

_HEADER = (
    r"# exactmap-trace (0|[1-9]\d*) source=(events|replay|run) plan_sha256=(-|[0-9a-f]{64}) "
    r"mover=(engine|inline) clock=ns(?: replicas=(\d+:\d+(?:,\d+:\d+)*))?"
)
_INT_COLUMNS = tuple(name for name in TRACE_COLUMNS if name != "op")
_MAY_BE_ABSENT = frozenset({"s_ns", "done_ns"})
_MAX_INT = 2**63 - 1
_MAX_DIGITS = 19
_MAX_BYTES = 4 * 2**30
_END = KINDS.index(Op.END)


def format_trace(trace: Trace) -> str:
    """The trace's file form as text."""
    replicas = ",".join(f"{dp}:{num}" for dp, num in sorted(trace.replicas.items()) if num != 1)
    header = (
        f"# exactmap-trace {TRACE_VERSION} source={trace.source} plan_sha256={trace.plan_sha256 or '-'} "
        f"mover={trace.mover} clock=ns{' replicas=' if replicas else ''}{replicas}"
    )
    columns = [
        trace.op if name == "op" else map(str, getattr(trace, name).tolist()) for name in TRACE_COLUMNS
    ]
    rows = map("\t".join, zip(*columns, strict=True))
    return "\n".join((header, "\t".join(TRACE_COLUMNS), *rows)) + "\n"


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write the trace to a file, whole or not at all."""
    write_atomically(path, format_trace(trace))


def read_trace(path: str | Path) -> Trace:
    """Read a trace file strictly.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or is no trace of this version: names file, line and column.
    """
    data = read_bytes(path, _MAX_BYTES, "trace")
    return parse_trace(data, path)


def parse_trace(data: bytes, source: str | Path | None = None) -> Trace:
    """Read a trace from bytes; `source` names it in messages.

    Raises
    ------
    InvalidInputError
        If the bytes are no trace of this version: names line and column.
    """
    return _Reader(source).read(data)


class _Reader:
    """Reads one document and names the place that is wrong."""

    def __init__(self, source: str | Path | None) -> None:
        self.source = source

    def fail(
        self,
        what: str,
        line: int,
        column: str | None = None,
        *,
        got: str | None = None,
        expected: str | None = None,
    ) -> InvalidInputError:
        shown = None if got is None else repr(got[:80])
        return InvalidInputError(what, where=Place(self.source, line, column), got=shown, expected=expected)

    def read(self, data: bytes) -> Trace:
        lines = self._lines(data)
        match = fullmatch(_HEADER, lines[0], ASCII)
        if match is None:
            raise self.fail(
                "not a trace", 1, got=lines[0], expected=f"# exactmap-trace {TRACE_VERSION} source=.."
            )
        version, source, sha256, mover, replicas = match.groups()
        if version != str(TRACE_VERSION):
            raise self.fail("a trace of another version", 1, got=version, expected=str(TRACE_VERSION))
        if len(lines) < 2 or tuple(lines[1].split("\t")) != TRACE_COLUMNS:
            got = lines[1] if len(lines) > 1 else "end of file"
            raise self.fail(
                "wrong column names", min(2, len(lines)), got=got, expected=" ".join(TRACE_COLUMNS)
            )
        fields = [line.split("\t") for line in lines[2:]]
        for number, parts in enumerate(fields, start=3):
            if len(parts) != len(TRACE_COLUMNS):
                raise self.fail(
                    "wrong number of columns", number, got=str(len(parts)), expected=str(len(TRACE_COLUMNS))
                )
        texts = dict(zip(TRACE_COLUMNS, zip(*fields, strict=True), strict=True)) if fields else {}
        columns = {name: self._ints(name, texts.get(name, ())) for name in _INT_COLUMNS}
        op = list(texts.get("op", ()))
        kinds = {text: kind_of_text(text) for text in set(op)}
        kind = np.array([kinds[text] for text in op], dtype=np.int8)
        self._refuse(kind < 0, "unknown instruction", "op", op)
        trace = Trace(
            source=source,
            plan_sha256="" if sha256 == "-" else sha256,
            mover=mover,
            kind=kind,
            op=op,
            replicas=self._replicas(replicas),
            **columns,
        )
        self._check_order(trace)
        self._check_times(trace)
        return trace

    def _lines(self, data: bytes) -> list[str]:
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self.fail("a byte that is not ASCII", line, got=f"0x{data[error.start]:02x}") from None
        if "\r" in text:
            raise self.fail("a carriage return", text.count("\n", 0, text.index("\r")) + 1)
        if not text.endswith("\n"):
            raise self.fail("the last line does not end", text.count("\n") + 1, expected="a line feed")
        return text[:-1].split("\n")

    def _ints(self, name: str, texts: tuple[str, ...]) -> Ints:
        lowest = -1 if name in _MAY_BE_ABSENT else 0
        try:
            values = [int(text) if len(text) <= _MAX_DIGITS else _MAX_INT + 1 for text in texts]
        except ValueError:
            values = []
        if (
            list(map(str, values)) == list(texts)
            and min(values, default=0) >= lowest
            and max(values, default=0) <= _MAX_INT
        ):
            return np.array(values, dtype=np.int64)
        pattern = r"(?:0|[1-9]\d{0,18}|-1)" if name in _MAY_BE_ABSENT else r"(?:0|[1-9]\d{0,18})"
        for number, text in enumerate(texts, start=3):
            if fullmatch(pattern, text, ASCII) is None or int(text) > _MAX_INT:
                raise self.fail("not a whole number", number, name, got=text)
        raise AssertionError(name)

    def _replicas(self, text: str | None) -> dict[int, int]:
        if text is None:
            return {}
        pairs = [pair.split(":") for pair in text.split(",")]
        if any(len(word) > _MAX_DIGITS - 1 or str(int(word)) != word for pair in pairs for word in pair):
            raise self.fail("not a whole number", 1, "replicas", got=text)
        out = {int(dp): int(num) for dp, num in pairs}
        if list(out) != sorted(out) or len(out) != len(pairs) or min(out.values()) < 1:
            raise self.fail("replicas must ascend, each for at least 1", 1, "replicas", got=text)
        return out

    def _refuse(
        self, wrong: np.ndarray[tuple[int], np.dtype[np.bool_]], what: str, column: str, shown: object
    ) -> None:
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            value = shown[at] if isinstance(shown, (list, np.ndarray)) else None
            raise self.fail(what, at + 3, column, got=None if value is None else str(value))

    def _check_order(self, trace: Trace) -> None:
        """Rows ascend by rank and step, without gaps; each rank's last row, and no other, is END."""
        if not len(trace):
            return
        same = np.ones(len(trace) - 1, dtype=bool)
        above = np.zeros(len(trace) - 1, dtype=bool)
        for name in ("step", "dp", "inner", "pp"):
            values = getattr(trace, name)
            above |= same & (values[1:] > values[:-1])
            same &= values[1:] == values[:-1]
        first = np.concatenate(([False], ~same & ~above))
        self._refuse(first, "rows are out of order", "step, dp, inner, pp", None)
        expected = np.zeros(len(trace), dtype=np.int64)
        expected[1:] = np.where(same, trace.index[:-1] + 1, 0)
        self._refuse(trace.index != expected, "instructions do not count up from 0", "index", trace.index)
        last = np.concatenate((~same, [True]))
        is_end = trace.kind == _END
        self._refuse(last & ~is_end, "a rank's last row is not END", "op", list(trace.op))
        self._refuse(is_end & ~last, "a row stands after END", "op", list(trace.op))

    def _check_times(self, trace: Trace) -> None:
        a_ns, s_ns, e_ns, done_ns = trace.a_ns, trace.s_ns, trace.e_ns, trace.done_ns
        is_work, is_post = WORK_KINDS[trace.kind], POST_KINDS[trace.kind]
        self._refuse(e_ns < a_ns, "left before it was reached", "e_ns", e_ns)
        self._refuse(
            is_work & ((s_ns < a_ns) | (s_ns > e_ns)), "a work starts outside of its time", "s_ns", s_ns
        )
        self._refuse(~is_work & ~is_post & (s_ns != -1), "only works and posts start something", "s_ns", s_ns)
        self._refuse(is_post & (done_ns < e_ns), "over before it was posted", "done_ns", done_ns)
        self._refuse(~is_post & (done_ns != -1), "only what a post starts can be over", "done_ns", done_ns)
        before = np.zeros(len(trace), dtype=np.int64)
        before[1:] = np.where(trace.index[1:] > 0, e_ns[:-1], 0)
        self._refuse(a_ns < before, "reached before the instruction above was left", "a_ns", a_ns)
