"""However a plan is changed, both readers give one verdict: the same code at the same line."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.backend_c import check as engine
from exactmap.sim.plan import verdict


def _strategies() -> ModuleType:
    path = Path(__file__).parents[1] / "strategies.py"
    spec = importlib.util.spec_from_file_location("strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _strategies()
ALL_PLANS = tuple(path.read_bytes() for path in sorted(shared.CORPUS.glob("*valid/*.plan")))
INSTRUCTION = re.compile(rb"(FB\{|[A-Z][A-Z0-9_]* )(?!i=)")
NUMBER = re.compile(rb"[0-9]+")
QUEUE = re.compile(rb"@[a-z0-9_]+")


@st.composite
def rearranged_plans(draw: st.DrawFn) -> bytes:
    """A plan of the corpus whose text stays a plan's: instructions moved, numbers and queues changed."""
    lines = draw(st.sampled_from(ALL_PLANS)).split(b"\n")
    for _ in range(draw(st.integers(1, 2))):
        _rearrange(draw, lines)
    return bytes(shared.resealed(b"\n".join(lines)))


def _rearrange(draw: st.DrawFn, lines: list[bytes]) -> None:
    body = [index for index, line in enumerate(lines) if INSTRUCTION.match(line)]
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
            taken = QUEUE.search(lines[other])
            if taken is not None:
                lines[at] = QUEUE.sub(taken[0], lines[at])
        case kind:
            if kind == "declare":
                at = draw(st.integers(min(2, len(lines) - 1), len(lines) - 1))
            _change_number(draw, lines, at)


def _change_number(draw: st.DrawFn, lines: list[bytes], at: int) -> None:
    numbers = list(NUMBER.finditer(lines[at]))
    if numbers:
        found = draw(st.sampled_from(numbers))
        changed = max(0, int(found[0]) + draw(st.sampled_from([-64, -2, -1, 1, 2, 64])))
        lines[at] = lines[at][: found.start()] + str(changed).encode() + lines[at][found.end() :]


def judge_by_both(data: bytes) -> str:
    """Hold the verdicts, and the cycles of deadlocks, against each other; returns the code."""
    found, said = verdict(data), engine.verdict(data)

    assert (said.code, said.line) == (found.code, found.line), f"{found.message}\n{said.message}"
    if found.cycle:
        assert [line.strip() for line in said.message.splitlines()[1:]] == [
            str(actor) for actor in found.cycle
        ]
    return found.code


@settings(max_examples=1500)
@given(shared.mutated_plans())
def test_both_readers_agree_on_damaged_files(data: bytes) -> None:
    judge_by_both(data)


@settings(max_examples=1500)
@given(rearranged_plans())
def test_both_readers_agree_on_plans_that_are_wrong_in_meaning(data: bytes) -> None:
    judge_by_both(data)


@given(st.binary(max_size=400))
def test_both_readers_agree_on_any_bytes(data: bytes) -> None:
    judge_by_both(data)
    judge_by_both(b"exactmap-plan 1.0\n" + data)


def test_rearranged_plans_reach_every_phase() -> None:
    """The strategy above is worth its time: it finds failures of all phases, and plans that stay valid."""
    seen: set[str] = set()

    @settings(max_examples=600)
    @given(rearranged_plans())
    def collect(data: bytes) -> None:
        seen.add(engine.verdict(data).code.partition(".")[0])

    collect()

    assert {"ok", "text", "head", "prog", "pair", "graph"} <= seen


@pytest.mark.fuzz
@settings(max_examples=200_000)
@given(st.one_of(shared.mutated_plans(), rearranged_plans()))
def test_both_readers_agree_for_hours(data: bytes) -> None:
    judge_by_both(data)
