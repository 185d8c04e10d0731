"""The fast check and the exact one are of one mind, whatever is done to a plan."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.plan import Plan, PlanError, read_plan, write_plan
from exactmap.sim.plan.accept import accepts
from exactmap.sim.plan.check import check_programs
from exactmap.sim.plan.declarations import check_declarations
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind


def _strategies() -> ModuleType:
    path = Path(__file__).parents[1] / "strategies.py"
    spec = importlib.util.spec_from_file_location("strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _strategies()


def lowered(schedule: str, pp: int, num_microbatches: int, chunks: int, *, tied: bool) -> Plan:
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp * chunks,
        hidden=32,
        heads=2,
        kv_heads=2,
        head_dim=16,
        ffn=64,
        vocab=259,
        positions=64,
        tied=tied,
    )
    return build_plan(
        model, schedule=schedule, pp=pp, num_microbatches=num_microbatches, chunks=chunks, dp=2, seq=32
    )


LOWERED = tuple(
    write_plan(lowered(schedule, pp, m, chunks, tied=tied))
    for schedule, pp, m, chunks, tied in (
        ("gpipe", 2, 3, 1, True),
        ("1f1b", 3, 5, 1, False),
        ("interleaved-1f1b", 2, 4, 2, True),
        ("zb-h1", 3, 4, 1, True),
    )
)


def judge_by_both(data: bytes) -> str:
    """Hold the fast check against the exact one; returns the code, or where the plan stopped before both."""
    try:
        plan = read_plan(data)
        check_declarations(plan, PlanError)
    except PlanError as error:
        return error.code
    code = "ok"
    try:
        check_programs(plan, PlanError)
    except PlanError as error:
        code = error.code

    assert accepts(plan) == (code == "ok" and covers(plan)), code
    return code


def covers(plan: Plan) -> bool:
    """Whether the fast check covers what the plan uses: no parts, no pools of one rank over each other."""
    if any(stage.parts for stage in plan.stages):
        return False
    laid = [
        (pool.pp, byte, byte + pool.num * pool.bytes)
        for pool in plan.pools
        if pool.letter != "o" and pool.bytes
        for byte in [pool.at]
    ]
    return not any(
        one[0] == other[0] and max(one[1], other[1]) < min(one[2], other[2])
        for place, one in enumerate(laid)
        for other in laid[:place]
    )


@settings(max_examples=1200, deadline=None)
@given(shared.rearranged_plans())
def test_rearranged_plans_of_the_corpus(data: bytes) -> None:
    judge_by_both(data)


@settings(max_examples=800, deadline=None)
@given(shared.rearranged_plans(LOWERED))
def test_rearranged_lowered_plans(data: bytes) -> None:
    judge_by_both(data)


@settings(max_examples=300, deadline=None)
@given(shared.mutated_plans())
def test_damaged_files(data: bytes) -> None:
    judge_by_both(data)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_swaps_that_keep_a_plan_valid(data: st.DataObject) -> None:
    """Neighbouring lines change places many times over, each swap kept if the exact check allows it."""
    lines = data.draw(st.sampled_from((*shared.VALID, *LOWERED))).split(b"\n")
    start = next(index for index, line in enumerate(lines) if line.startswith(b"program "))
    for at in data.draw(st.lists(st.integers(start, len(lines) - 3), max_size=20)):
        swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
        if judge_by_both(shared.resealed(b"\n".join(swapped))) == "ok":
            lines = swapped


def test_the_plans_above_reach_every_late_phase() -> None:
    seen: set[str] = set()

    @settings(max_examples=600, deadline=None)
    @given(st.one_of(shared.rearranged_plans(), shared.rearranged_plans(LOWERED)))
    def collect(data: bytes) -> None:
        seen.add(judge_by_both(data).partition(".")[0])

    collect()

    assert {"ok", "prog", "pair", "graph"} <= seen


@pytest.mark.fuzz
@settings(max_examples=100_000, deadline=None)
@given(st.one_of(shared.rearranged_plans(), shared.rearranged_plans(LOWERED), shared.mutated_plans()))
def test_both_checks_agree_for_hours(data: bytes) -> None:
    judge_by_both(data)
