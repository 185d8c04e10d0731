"""The header's lines: their order, their grammar, the bounds of their numbers.

One rule per kind of line, in file order; `docs/reference/plan-format.md`, section 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from exactmap.sim.plan.text import INDEX_MAX, INT, INT_MAX, NAME, NUM, PROGRAM_NAME

__all__ = ["HEADER_ORDER", "RULES", "HeaderRule", "header_kind"]

_DTYPE: Final = "(?:f32|bf16|f16|f8|f4)"
_AXIS: Final = "(?:tp|cp|ep|pp|dp)"
_AXES: Final = rf"{_AXIS}(?:,{_AXIS})*"
_INTS: Final = rf"{INT}(?:,{INT})*"
_NAMES: Final = rf"{NAME}(?:,{NAME})*"
_PART: Final = "(?:wte|wpe|layers|norm|head)"
_DIGITS: Final = re.compile("[0-9]+")
_KEY: Final = r"[A-Za-z][A-Za-z0-9_.]*"

# Bounds of a group of a pattern: (name, least, most). Groups that hold lists are bounded number by number.
_Bound = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """Grammar of one kind of header line.

    `bounds` are (group, least, most); every number in the group must lie between. `nums` are groups that must
    be finite.
    """

    kind: str
    pattern: re.Pattern[str]
    bounds: tuple[_Bound, ...] = ()
    nums: tuple[str, ...] = ()
    digits: re.Pattern[str] = _DIGITS
    required: bool = True
    repeats: bool = False

    def out_of_bounds(self, match: re.Match[str]) -> str | None:
        """What is wrong with the numbers of a line that matched, or None."""
        for name, least, most in self.bounds:
            text = match[name]
            if text is None:
                continue
            for digits in self.digits.findall(text):
                if not least <= int(digits) <= most:
                    return f"{name} is {digits}, expected {least} to {most}"
        for name in self.nums:
            if float(match[name]) == float("inf"):
                return f"{name} is {match[name]}, expected a finite number"
        return None


def _fields(kind: str, *words: str) -> str:
    return " ".join([kind, *words])


def _group(key: str, pattern: str) -> str:
    return rf"{key}=(?P<{key}>{pattern})"


def _rule(
    pattern: str,
    *,
    index: str = "",
    count: str = "",
    ints: str = "",
    positive: str = "",
    nums: str = "",
    digits: str = "[0-9]+",
    required: bool = True,
    repeats: bool = False,
) -> HeaderRule:
    kind = re.match(r"x-|[a-z-]+", pattern)
    assert kind is not None
    bounds = [
        *((name, 0, INDEX_MAX) for name in index.split()),
        *((name, 1, INDEX_MAX) for name in count.split()),
        *((name, 0, INT_MAX) for name in ints.split()),
        *((name, 1, INT_MAX) for name in positive.split()),
    ]
    return HeaderRule(
        kind[0],
        re.compile(pattern),
        tuple(bounds),
        tuple(nums.split()),
        re.compile(digits),
        required,
        repeats,
    )


def _ints(*keys: str) -> list[str]:
    return [_group(key, INT) for key in keys]


def _numbers(*keys: str) -> list[str]:
    return [_group(key, NUM) for key in keys]


_RULES: Final = (
    _rule(r"exactmap-plan 1\.(?P<minor>" + INT + ")", ints="minor"),
    _rule("body sha256=(?P<sha256>[0-9a-f]{64})"),
    _rule(
        _fields(
            "model",
            _group("kind", "gpt|llama"),
            *_ints("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "positions"),
            _group("tied", "yes|no"),
            *_numbers("eps", "theta"),
        ),
        count="layers",
        positive="hidden heads kv_heads head_dim ffn vocab",
        ints="positions",
        nums="eps theta",
    ),
    _rule(
        _fields(
            "train",
            *_ints("microbatch", "m", "seq", "slices"),
            "optimizer=(?P<optimizer>adamw)",
            *_numbers("lr", "lr_min"),
            *_ints("warmup", "steps"),
            *_numbers("beta1", "beta2", "eps", "decay", "clip"),
            *_ints("seed"),
        ),
        count="m slices",
        positive="microbatch seq steps",
        ints="warmup seed",
        nums="lr lr_min beta1 beta2 eps decay clip",
    ),
    _rule(_fields("precision", *(_group(key, _DTYPE) for key in ("param", "grad", "act", "comm", "moment")))),
    _rule(
        _fields("mesh", *_ints("tp", "cp", "ep", "pp", "dp"), _group("order", _AXES)), count="tp cp ep pp dp"
    ),
    _rule(
        rf"stage (?P<stage>{INT})(?: layers=(?P<first>{INT})\.\.(?P<last>{INT}))?"
        rf"(?P<embedding> embedding)?(?P<head> head)?(?: parts=(?P<parts>{_NAMES}))?",
        index="stage first last",
        repeats=True,
    ),
    _rule(rf"place(?P<stages>(?: {INT}={_INTS})+)", index="stages"),
    _rule("clock=(?P<clock>barrier|free)"),
    _rule("serial=(?P<serial>yes|no)"),
    _rule(rf"limit=(?P<limit>{INT})", ints="limit"),
    _rule(rf"couple(?P<kinds>(?: (?:F|I|W|B|RC)={_AXES})+)", required=False),
    _rule(_fields("budget", *_ints("bytes")), ints="bytes", required=False),
    _rule(
        rf"chan (?P<name>{NAME}) (?P<src>{INT})>(?P<dst>{INT}) (?P<cls>[FB]) "
        rf"depth=(?P<depth>{INT}) bytes=(?P<bytes>{INT})",
        index="src dst depth",
        ints="bytes",
        required=False,
        repeats=True,
    ),
    _rule(
        rf"group (?P<name>{NAME}) axes=(?P<axes>{_AXES})(?: pp=(?P<pp>{_INTS}))?(?: scan=(?P<scan>up|down))?",
        index="pp",
        required=False,
        repeats=True,
    ),
    _rule(
        rf"bucket (?P<stage>{INT})/(?P<index>{INT}) holds=(?P<holds>{_PART}(?:,{_PART})*) "
        rf"elements=(?P<elements>{INT})(?: shard=(?P<shard>{NAME}))?(?: reduce=(?P<reduce>{_NAMES}))?",
        index="stage index",
        ints="elements",
        repeats=True,
    ),
    _rule(
        rf"tie (?P<first>{INT}/{INT}) (?P<second>{INT}/{INT})",
        index="first second",
        required=False,
        repeats=True,
    ),
    _rule(_fields("arena", *_ints("pp", "bytes")), index="pp", ints="bytes", repeats=True),
    _rule(
        _fields(
            "region", *_ints("pp"), "(?P<kind>params|grads|moments|staging|workspace)", *_ints("bytes", "at")
        ),
        index="pp",
        ints="bytes at",
        required=False,
        repeats=True,
    ),
    _rule(
        _fields("pool", *_ints("pp"), "(?P<letter>[hawgkpqo])", *_ints("n", "bytes", "at")),
        index="pp",
        count="n",
        ints="bytes at",
        required=False,
        repeats=True,
    ),
    _rule(rf"made(?P<pairs>(?: {_KEY}=[!-~]+)+)", required=False),
    _rule(
        rf"cost(?P<pairs>(?: {_KEY}={INT})+)",
        ints="pairs",
        digits="(?<==)[0-9]+",
        required=False,
        repeats=True,
    ),
    _rule(rf"pred(?P<pairs>(?: {_KEY}=[!-~]+)+)", required=False, repeats=True),
    _rule(rf"x-{NAME} [!-~](?:[ -~]*[!-~])?", required=False, repeats=True),
    _rule(
        rf"map pp=(?P<pp>{INT})(?:,dp=(?P<dp>{INT}))? (?P<program>{PROGRAM_NAME})",
        index="pp dp",
        repeats=True,
    ),
    _rule(rf"program (?P<program>{PROGRAM_NAME})", repeats=True),
)

HEADER_ORDER: Final = tuple(rule.kind for rule in _RULES)
"""Kinds of header lines in file order; the last is `program`, which ends the header."""

RULES: Final = {rule.kind: rule for rule in _RULES}


def header_kind(line: str) -> str | None:
    """Kind of header line that the first word of `line` names, or None."""
    word = line.split(" ", 1)[0]
    if word in RULES:
        return None if word in {"clock", "serial", "limit"} else word
    for prefix in ("clock=", "serial=", "limit="):
        if word.startswith(prefix):
            return prefix[:-1]
    return "x-" if word.startswith("x-") else None
