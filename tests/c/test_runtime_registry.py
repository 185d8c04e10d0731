"""Every schedule of the registry, as the planner lowers it: the engine learns with it what 1F1B teaches."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from engine_case import Case, make_data
from engine_runs import STEPS, losses, one_f_one_b

from exactmap.backend_c.run import RunOptions, RunResult, footprint, run_plan
from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.schedules.registry import SCHEDULES

SLICED = {"seq-1f1b", "terapipe"}
SANITIZED = {"dualpipe", "braided-interleaved", "seq-1f1b", "1f1b-recompute", "1f1b-offload"}
"""Schedules that together do everything: sanitizers see nothing new in the others."""
NAMES = [pytest.param(name, marks=pytest.mark.sanitize) if name in SANITIZED else name for name in SCHEDULES]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


def cut(case: Case, name: str) -> Case:
    """The case under a schedule, with two chunks a rank or two slices where it knows them."""
    return case.having(
        schedule=name, chunks=2 if SCHEDULES[name].many_chunks else 1, slices=2 if name in SLICED else 1
    )


def train(case: Case, data: Path, folder: Path) -> RunResult:
    """Six steps and a validation; the plan's bytes are the engine's own need, and no step takes memory."""
    plan = case.write(folder / "a.plan")
    traced = folder / "trace.tsv"
    options = RunOptions(
        steps=STEPS, eval_sequences=5, timeout_s=60.0, trace=traced, trace_steps=(STEPS - 1, STEPS - 1)
    )
    result = run_plan(plan, data, options)

    hold_trace_against_plan(plan, traced)
    assert result.step_allocations == 0
    assert [need["arena_bytes"] for need in footprint(plan)] == list(result.arena_bytes)
    return result


def hold_trace_against_plan(path: Path, traced: Path) -> None:
    """Every rank of every replica did its program, instruction by instruction, in the program's order."""
    plan, trace = read_plan(path.read_bytes()), read_trace(traced)
    for pp, dp in product(range(plan.mesh.pp), range(plan.mesh.dp)):
        program, rows = plan.program(pp, dp), trace.actor(pp, dp)

        assert rows.line.tolist() == list(program.lines)
        assert list(rows.op) == [format_instruction(each) for each in program.instructions]
        assert (rows.e_ns >= rows.a_ns).all()
        assert (rows.a_ns[1:] >= rows.e_ns[:-1]).all()


def hold_against_1f1b(case: Case, data: Path, folder: Path) -> None:
    plain = case.having(chunks=1, slices=1, late_norm=False, shard_params=False)
    expected = one_f_one_b(plain, data, folder, eval_sequences=5)
    got = train(case, data, folder)

    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    assert got.val_loss == pytest.approx(expected.val_loss, rel=1e-6)


@pytest.mark.parametrize("late", [False, True], ids=["barrier", "late"])
@pytest.mark.parametrize("pp", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_learns_what_1f1b_learns(
    name: str, pp: int, late: bool, data: Path, tmp_path: Path
) -> None:
    """As many microbatches as ranks, twice: each loss within 1e-6 of 1F1B's, and the validation's."""
    case = cut(Case(layers=2 * pp, pp=pp, m=2 * pp, late_norm=late), name)
    hold_against_1f1b(case, data, tmp_path)


@pytest.mark.parametrize("late", [False, True], ids=["barrier", "late"])
@pytest.mark.parametrize("kind", ["llama", "gpt"])
@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_shards_its_parameters(
    name: str, kind: str, late: bool, data: Path, tmp_path: Path
) -> None:
    """Two replicas share parameters, gradients and moments; a tied embedding is one of them."""
    case = Case(kind=kind, tied=kind == "gpt", pp=2, dp=2, m=4, late_norm=late, shard_params=True)
    hold_against_1f1b(cut(case, name), data, tmp_path)
