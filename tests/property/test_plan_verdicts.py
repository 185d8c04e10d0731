"""However a plan is changed, both readers give one verdict: the same code at the same line."""

from __future__ import annotations

import importlib.util
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
@given(shared.rearranged_plans())
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
    @given(shared.rearranged_plans())
    def collect(data: bytes) -> None:
        seen.add(engine.verdict(data).code.partition(".")[0])

    collect()

    assert {"ok", "text", "head", "prog", "pair", "graph"} <= seen


@pytest.mark.fuzz
@settings(max_examples=200_000)
@given(st.one_of(shared.mutated_plans(), shared.rearranged_plans()))
def test_both_readers_agree_for_hours(data: bytes) -> None:
    judge_by_both(data)
