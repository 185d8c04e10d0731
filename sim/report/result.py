"""One step, predicted or executed, in the same words: what `simulate` and `run` write and `compare` reads.

The JSON document has `schema_version` 1 and `kind` `prediction` or `execution`; every quantity carries its
unit in its name, and the trace that it was computed from lies beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes

if TYPE_CHECKING:
    from exactmap.sim.engine.summary import StepSummary
    from exactmap.sim.plan.plan import Plan

__all__ = ["RESULT_SCHEMA_VERSION", "RankResult", "StepResult", "read_result"]

RESULT_SCHEMA_VERSION = 1
MAX_RESULT_BYTES = 256 * 2**20
MAX_NUMBER = 1e300


@dataclass(frozen=True, slots=True)
class RankResult:
    """One pipeline rank's step; keys of the mappings are instruction words."""

    pp: int
    dp: int
    end_ns: int
    busy_ns: Mapping[str, int]
    waiting_ns: Mapping[str, int]
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of a plan, predicted or executed.

    Attributes
    ----------
    kind
        ``prediction`` or ``execution``.
    source
        Who says so: ``replay``, ``events`` or ``run``.
    plan_sha256
        Hash of the plan file's bytes.
    step_time_ns
        The barrier makespan: the last END of the step (execution: the median over the traced steps).
    period_ns, bubble, steady_bubble
        The free clock, and the idle shares under both clocks.
    tokens_per_step
        Over all replicas.
    num_gpus
        Ranks of the whole mesh.
    model_flop_per_step
        Model FLOPs (no recompute) of the whole step over all ranks.
    band
        Relative error band of the prediction, as (low, high) factors minus 1; None where none is known.
    basis
        What the durations come from.
    trace
        File name of the trace, beside the document.
    """

    kind: str
    source: str
    plan_sha256: str
    plan_path: str
    step_time_ns: int
    period_ns: int
    bubble: float
    steady_bubble: float
    tokens_per_step: int
    num_gpus: int
    ranks: tuple[RankResult, ...]
    basis: str
    model_flop_per_step: int = 0
    peak_flop_per_s: float = 0.0
    band: tuple[float, float] | None = None
    trace: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def from_summary(
        plan: Plan,
        summary: StepSummary,
        *,
        kind: str,
        source: str,
        plan_sha256: str,
        plan_path: str,
        basis: str,
        model_flop_per_step: int = 0,
        peak_flop_per_s: float = 0.0,
        band: tuple[float, float] | None = None,
    ) -> StepResult:
        """Put a summary of a trace and its plan together."""
        arenas = {arena.pp: arena.bytes for arena in plan.arenas}
        mesh, train = plan.mesh, plan.train
        ranks = tuple(
            RankResult(r.pp, r.dp, r.end_ns, dict(r.busy_ns), dict(r.exposed_ns), arenas[r.pp])
            for r in summary.ranks
        )
        return StepResult(
            kind=kind,
            source=source,
            plan_sha256=plan_sha256,
            plan_path=plan_path,
            step_time_ns=summary.makespan_ns,
            period_ns=summary.period_ns,
            bubble=summary.bubble,
            steady_bubble=summary.steady_bubble,
            tokens_per_step=train.microbatch * train.m * train.seq * mesh.dp,
            num_gpus=mesh.tp * mesh.cp * mesh.ep * mesh.pp * mesh.dp,
            ranks=ranks,
            basis=basis,
            model_flop_per_step=model_flop_per_step,
            peak_flop_per_s=peak_flop_per_s,
            band=band,
        )

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the whole mesh."""
        return self.tokens_per_step / (self.step_time_ns / 1e9) if self.step_time_ns else 0.0

    @property
    def peak_bytes(self) -> int:
        """The largest arena of any rank."""
        return max((rank.arena_bytes for rank in self.ranks), default=0)

    @property
    def model_flop_utilisation(self) -> float:
        """Model FLOPs per second over the peak of all ranks, as a share of 1; 0 where the peak is unknown."""
        if not (self.peak_flop_per_s and self.step_time_ns):
            return 0.0
        return self.model_flop_per_step / (self.step_time_ns / 1e9) / (self.peak_flop_per_s * self.num_gpus)

    def total_ns(self, *, waiting: bool) -> dict[str, int]:
        """Time per instruction word, summed over the ranks: in waits, or in works."""
        out: dict[str, int] = {}
        for rank in self.ranks:
            for word, ns in (rank.waiting_ns if waiting else rank.busy_ns).items():
                out[word] = out.get(word, 0) + ns
        return out

    def to_dict(self) -> dict[str, object]:
        """The result as a JSON-ready document."""
        return {
            "schema_version": RESULT_SCHEMA_VERSION,
            "kind": self.kind,
            "source": self.source,
            "plan_path": self.plan_path,
            "plan_sha256": self.plan_sha256,
            "step_time_ns": self.step_time_ns,
            "period_ns": self.period_ns,
            "bubble": self.bubble,
            "steady_bubble": self.steady_bubble,
            "tokens_per_step": self.tokens_per_step,
            "tokens_per_s": self.tokens_per_s,
            "num_gpus": self.num_gpus,
            "peak_bytes": self.peak_bytes,
            "model_flop_per_step": self.model_flop_per_step,
            "peak_flop_per_s": self.peak_flop_per_s,
            "band": None if self.band is None else list(self.band),
            "basis": self.basis,
            "trace": self.trace,
            "ranks": [
                {
                    "pp": r.pp,
                    "dp": r.dp,
                    "end_ns": r.end_ns,
                    "busy_ns": dict(r.busy_ns),
                    "waiting_ns": dict(r.waiting_ns),
                    "arena_bytes": r.arena_bytes,
                }
                for r in self.ranks
            ],
            "extra": dict(self.extra),
        }

    def to_json(self) -> str:
        """The document as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def read_result(path: str | Path) -> StepResult:
    """Read a result document.

    Raises
    ------
    InvalidInputError
        If it is no result of this version, or a field is missing or of the wrong type.
    """
    data = read_bytes(path, MAX_RESULT_BYTES, "result")
    try:
        loaded: object = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("not a JSON document", where=Place(path), got=str(error)[:120]) from None
    document = _Document(loaded, Place(path))
    version, kind = document.get("schema_version"), document.get("kind")
    if version is True or version != RESULT_SCHEMA_VERSION or kind not in ("prediction", "execution"):
        got = f"kind {kind!r} version {version!r}"[:80]
        raise InvalidInputError(
            "not a result of this version",
            where=Place(path),
            got=got,
            expected=f"a prediction or execution of version {RESULT_SCHEMA_VERSION}",
            hint="write one with: exactmap simulate PLAN --out DIR, or exactmap run PLAN --out DIR",
        )
    return StepResult(
        kind=document.text("kind"),
        source=document.text("source"),
        plan_sha256=document.matching("plan_sha256", "[0-9a-f]{64}", "64 hexadecimal digits"),
        plan_path=document.text("plan_path"),
        step_time_ns=document.integer("step_time_ns"),
        period_ns=document.integer("period_ns"),
        bubble=document.number("bubble"),
        steady_bubble=document.number("steady_bubble"),
        tokens_per_step=document.integer("tokens_per_step"),
        num_gpus=document.integer("num_gpus"),
        ranks=tuple(_read_rank(entry, Place(path)) for entry in document.entries("ranks")),
        basis=document.text("basis"),
        model_flop_per_step=document.integer("model_flop_per_step"),
        peak_flop_per_s=document.number("peak_flop_per_s"),
        band=document.pair("band"),
        trace=document.matching("trace", r"(?!\.\.?$)[^/\0]*", "the name of a file beside the document"),
        extra=document.mapping("extra"),
    )


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name}, which JSON does not know")


def _read_rank(entry: object, place: Place) -> RankResult:
    rank = _Document(entry, place)
    return RankResult(
        pp=rank.integer("pp"),
        dp=rank.integer("dp"),
        end_ns=rank.integer("end_ns"),
        busy_ns=rank.integers("busy_ns"),
        waiting_ns=rank.integers("waiting_ns"),
        arena_bytes=rank.integer("arena_bytes"),
    )


class _Document:
    """A JSON object whose fields are asked for by type."""

    def __init__(self, value: object, place: Place) -> None:
        self.place = place
        if not isinstance(value, dict):
            raise InvalidInputError("not a JSON object", where=place, got=type(value).__name__)
        self.fields = cast("dict[str, object]", value)

    def get(self, name: str) -> object:
        return self.fields.get(name)

    def _typed(self, name: str, kind: type | tuple[type, ...], expected: str) -> object:
        if name not in self.fields:
            raise InvalidInputError("a field is missing", where=self._at(name), expected=expected)
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(name, expected)
        return value

    def _at(self, name: str) -> Place:
        return Place(self.place.file, field=name)

    def _wrong(self, name: str, expected: str) -> InvalidInputError:
        got = repr(self.fields[name])[:60]
        return InvalidInputError("a field is wrong", where=self._at(name), got=got, expected=expected)

    def text(self, name: str) -> str:
        return cast("str", self._typed(name, str, "text"))

    def matching(self, name: str, pattern: str, expected: str) -> str:
        value = self.text(name)
        if fullmatch(pattern, value) is None:
            raise self._wrong(name, expected)
        return value

    def integer(self, name: str) -> int:
        expected = "a whole number of at least 0, below 2^63"
        value = cast("int", self._typed(name, int, expected))
        if not 0 <= value < 2**63:
            raise self._wrong(name, expected)
        return value

    def number(self, name: str) -> float:
        value = cast("float", self._typed(name, (int, float), "a number"))
        if not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise self._wrong(name, "a finite number")
        return float(value)

    def pair(self, name: str) -> tuple[float, float] | None:
        value: object = self.fields.get(name)
        if value is None and name in self.fields:
            return None
        entries = cast("list[object]", self._typed(name, list, "two numbers, or null"))
        if len(entries) != 2:
            raise self._wrong(name, "two numbers, or null")
        inner = _Document(dict(zip(("low", "high"), entries, strict=True)), self.place)
        return inner.number("low"), inner.number("high")

    def mapping(self, name: str) -> dict[str, object]:
        return cast("dict[str, object]", self._typed(name, dict, "an object"))

    def integers(self, name: str) -> dict[str, int]:
        inner = _Document(self.mapping(name), self.place)
        return {key: inner.integer(key) for key in inner.fields}

    def entries(self, name: str) -> list[object]:
        return cast("list[object]", self._typed(name, list, "a list"))
