"""The automatic scheduler beside the exact optimum of small pipelines, which OR-Tools proves."""

from __future__ import annotations

from itertools import product

import pytest

from exactmap.sim.schedules.auto import Memory, find_order
from exactmap.sim.schedules.auto.bounds import lower_bound
from exactmap.sim.schedules.auto.problem import Problem
from exactmap.sim.schedules.order import loop_placement, vee_placement
from exactmap.sim.schedules.timeline import WorkTimes

pytestmark = pytest.mark.slow

F_I_W = {"even": (2, 2, 2), "light W": (2, 2, 1), "heavy I": (2, 4, 2), "measured": (10, 12, 7)}


def work_times(durations: tuple[int, int, int], num_stages: int, hop_ns: int, uneven: bool) -> WorkTimes:
    work_ns = {
        (op, stage): duration * 10 + (3 * stage if uneven else 0)
        for stage in range(num_stages)
        for op, duration in zip("FIW", durations, strict=True)
    }
    return WorkTimes(work_ns, hop_ns)


def optimum(problem: Problem, objective: str) -> tuple[int, bool]:
    """The least makespan or span of any order and any idling, by constraint programming; is it proven."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    m, num_stages = problem.num_microbatches, problem.num_stages
    durations = (problem.forward_ns, problem.input_ns, problem.weight_ns)
    horizon = m * sum(map(sum, durations)) + 2 * num_stages * problem.hop_ns
    start, end, works = {}, {}, [[] for _ in range(problem.num_ranks)]
    for kind, stage, j in product(range(3), range(num_stages), range(m)):
        key = kind, stage, j
        start[key] = model.new_int_var(0, horizon, f"s{key}")
        end[key] = start[key] + durations[kind][stage]
        interval = model.new_interval_var(start[key], durations[kind][stage], end[key], f"i{key}")
        works[problem.rank_of[stage]].append(interval)
    for rank in works:
        model.add_no_overlap(rank)
    for stage, j in product(range(num_stages), range(m)):
        if stage + 1 < num_stages:
            hop = problem.hop_ns if problem.rank_of[stage] != problem.rank_of[stage + 1] else 0
            model.add(start[0, stage + 1, j] >= end[0, stage, j] + hop)
            model.add(start[1, stage, j] >= end[1, stage + 1, j] + hop)
        else:
            model.add(start[1, stage, j] >= end[0, stage, j])
        model.add(start[2, stage, j] >= end[1, stage, j])
    for j in range(m - 1):  # Microbatches are alike: number them by their first forward pass.
        model.add(start[0, 0, j] <= start[0, 0, j + 1])
    for rank, stages in enumerate(problem.stages_of):
        at, changes = [], []
        for stage, j in product(stages, range(m)):
            at += [start[0, stage, j], end[1, stage, j], end[2, stage, j]]
            adds, frees = problem.adds[stage], problem.frees[stage]
            changes += [adds, -frees, frees - adds]
        model.add_reservoir_constraint(at, changes, 0, problem.limits[rank])
    value = model.new_int_var(0, horizon, "value")
    for rank, stages in enumerate(problem.stages_of):
        first = model.new_int_var(0, horizon, f"first{rank}")
        if objective == "barrier":
            model.add(first == 0)
        # What the rank computes: obvious, but the solver is faster when told.
        model.add(value >= m * sum(column[stage] for column in durations for stage in stages))
        for stage, j in product(stages, range(m)):
            if objective == "period":
                model.add(first <= start[0, stage, j])
            model.add(value >= end[2, stage, j] - first)
    model.minimize(value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 2
    solver.parameters.max_time_in_seconds = 6
    status = solver.solve(model)
    assert status in {cp_model.OPTIMAL, cp_model.FEASIBLE}
    # Where it is not proven, what the solver knows to be a bound stands for the optimum.
    return round(solver.best_objective_bound), status == cp_model.OPTIMAL


LOOP = [(2, 2, 2), (2, 4, 2), (2, 6, 1), (3, 3, 2), (3, 4, 3), (3, 6, 3), (4, 4, 2), (4, 5, 4)]
VEE = [(2, 3, 2), (2, 4, 1), (3, 3, 2)]
CASES = [
    (vee, *size, name, hop_ns, uneven)
    for vee, sizes in ((False, LOOP), (True, VEE))
    for number, size in enumerate(sizes)
    for name, hop_ns, uneven in (
        ("even", 0, False),
        (("light W", "heavy I", "measured")[number % 3], 4, number % 2 == 0),
    )
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("objective", ["barrier", "period"])
def test_small_pipelines_are_within_bound_and_optimum(objective: str) -> None:
    """On every small case: bound <= optimum <= what is found; and most of them are solved to the optimum."""
    equal = proven = 0
    report = []
    for vee, p, m, limit, name, hop_ns, uneven in CASES:
        placement = vee_placement(p) if vee else loop_placement(p, 1)
        chunks = len(placement) // p
        times = work_times(F_I_W[name], len(placement), hop_ns, uneven)
        memory = Memory((1,) * len(placement), (0,) * len(placement), limit * chunks)
        problem = Problem.of(p, m, placement, times, memory)
        best, is_proven = optimum(problem, objective)
        bound = lower_bound(problem, objective)
        found = find_order(
            p,
            m,
            times,
            stash_limit=limit,
            placement="vee" if vee else "loop",
            objective=objective,
            budget=300_000,
        )
        case = f"p={p} m={m} limit={limit} {name} hop={hop_ns} {'vee' if vee else 'loop'}"
        known = "optimum" if is_proven else "at least"
        report.append(
            f"{case}: bound {bound.value_ns} ({bound.name}), {known} {best}, found {found.value_ns}"
        )
        if is_proven:
            assert bound.value_ns <= best, report[-1]
            assert found.value_ns <= 1.1 * best, report[-1]
            proven += 1
            equal += best == found.value_ns
        assert bound.value_ns <= found.value_ns, report[-1]
        assert best <= found.value_ns, report[-1]
    assert proven >= 0.4 * len(CASES), "\n".join(report)
    assert equal >= 0.8 * proven, "\n".join(report)


def test_memory_that_input_gradients_free_is_used() -> None:
    """With weights of memory instead of a stash the optimum is below that of the stash, and it is found."""
    times = work_times((2, 2, 1), 3, 0, uneven=False)
    memory = Memory((4,) * 3, (3,) * 3, 12)
    problem = Problem.of(3, 5, loop_placement(3, 1), times, memory)
    best, proven = optimum(problem, "period")
    found = find_order(3, 5, times, memory=memory, objective="period", budget=300_000)
    stash = find_order(3, 5, times, stash_limit=3, objective="period", budget=300_000)
    assert proven
    assert lower_bound(problem, "period").value_ns <= best <= found.value_ns <= stash.value_ns
    assert found.value_ns <= 1.05 * best
