"""The search: it finds the best plan, says why, gives the same bytes again, and refuses in numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from exactmap.errors import InfeasibleError
from exactmap.sim.cost.cost_lines import profile_from_cost_lines
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.memory import RankMemory
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan
from exactmap.sim.plan.plan import Precision
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.planner.candidate import Rejection, SearchSpace, enumerate_candidates
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.planner.explain import family_bests, rejection_counts, step_parts
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.planner.search import Ranking, search
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.mapping import Mesh

SCENARIOS = Path(__file__).parents[2] / "scenarios"

TINY = SearchSpace(
    tp=(1,),
    cp=(1,),
    pp=(1, 2, 4),
    chunks=(1, 2),
    microbatch=(1, 2, 4),
    schedules=("gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "1f1b-recompute"),
    zero=(0, 1),
    num_gpus=4,
    global_batch=16,
    layers=4,
    heads=4,
    kv_heads=4,
    seq=64,
)


@cache
def _estimator(budget_bytes: int = 2**31) -> Estimator:
    from exactmap.sim.scenario.scenario import load_scenario

    cluster = load_scenario(SCENARIOS / "cpu-quick.yaml", ["cluster.num_gpus=4"]).cluster
    formats = find_formats("fp32")
    return Estimator(find_preset("byte-tiny"), 64, formats, ClusterPricing(cluster, formats), budget_bytes)


def _search(space: SearchSpace = TINY, estimator: Estimator | None = None, **options: Any) -> Ranking:
    return search(
        space,
        estimator or _estimator(),
        optimizer=OptimizerSettings(),
        precision=Precision("f32", "f32", "f32", "f32", "f32"),
        **options,
    )


@cache
def _everything() -> Ranking:
    """Each candidate as a whole plan: the brute force."""
    return _search(num_walked=10_000, num_finalists=10_000)


def test_finds_the_best_of_all() -> None:
    """The first of a search that simulates few is the first of all that can be simulated."""
    few, everything = _search(num_walked=12, num_finalists=4), _everything()

    assert len(few.finalists) == 4
    assert len(everything.finalists) == len(everything.estimates) > 20
    assert few.winner.candidate == everything.winner.candidate
    assert few.winner.step_ns == min(each.step_ns for each in everything.finalists)


def test_finalists_are_in_order() -> None:
    ranking = _everything()
    keys = [(each.step_ns, each.candidate) for each in ranking.finalists]

    assert keys == sorted(keys)
    assert ranking.winner is ranking.finalists[0]


def test_every_candidate_is_counted_once() -> None:
    ranking = _search()
    seen = list(enumerate_candidates(TINY))

    assert len(seen) == ranking.num_candidates
    assert sum(isinstance(each, Rejection) for each in seen) == ranking.survey.num_refused
    assert len({each.candidate for each in ranking.estimates}) == len(ranking.estimates)


def test_estimates_come_close_to_plans() -> None:
    """Passes are walked; of gradients and optimizer the first rank's are taken, which ends last."""
    ratios = [finalist.estimate.step_ns / finalist.step_ns for finalist in _everything().finalists]

    assert all(0.9 < ratio < 1.1 for ratio in ratios)
    assert 0.98 < median(ratios) < 1.02


def test_memory_estimate_comes_close_to_the_arena() -> None:
    """Within a tenth of the exact bytes of the finished plan, on all schedules."""
    for finalist in _everything().finalists:
        ratio = finalist.estimate.memory.total_bytes / finalist.peak_bytes

        assert 0.9 < ratio < 1.1, finalist.candidate.label


def test_same_search_same_bytes() -> None:
    first, second = _search(num_finalists=2), _search(num_finalists=2)

    assert [write_plan(each.plan) for each in first.finalists] == [
        write_plan(each.plan) for each in second.finalists
    ]


def test_a_plan_repeats_its_own_prediction() -> None:
    """Read back and priced by its cost lines, a plan gives the search's nanoseconds in both engines."""
    for finalist in _everything().finalists[:8]:
        plan = read_plan(write_plan(finalist.plan))
        check_plan(plan)
        durations = resolve(plan, profile_from_cost_lines(plan.cost))
        by_replay = replay(plan, durations).summary()
        by_events = simulate_events(plan, durations).summary()

        assert by_replay.makespan_ns == by_events.makespan_ns == finalist.step_ns
        assert by_replay.period_ns == by_events.period_ns == finalist.summary.period_ns
        assert dict(plan.pred) == {
            "step_ns": str(finalist.step_ns),
            "period_ns": str(finalist.summary.period_ns),
            "bubble": f"{finalist.summary.bubble:.6f}",
        }


def test_parts_add_up_to_the_step() -> None:
    for finalist in _everything().finalists:
        parts = step_parts(finalist)

        assert finalist.step_ns == (
            parts.passes_ns
            + parts.exposed_messages_ns
            + parts.exposed_collectives_ns
            + parts.optimizer_ns
            + parts.idle_ns
        )
        assert parts.idle_ns >= 0


def test_too_little_memory_is_a_reason() -> None:
    """Layouts over the budget fall away with their excess; those that fit remain, within the budget."""
    arenas = sorted(each.peak_bytes for each in _everything().finalists)
    budget_bytes = arenas[len(arenas) // 2]
    ranking = _search(estimator=_estimator(budget_bytes), num_finalists=10_000)
    over = ranking.survey.nearest["memory"]

    assert ranking.survey.counts["memory"] > 0
    assert over.excess > 0
    assert "over the 0.0 GiB to use" in over.why
    assert all(each.peak_bytes <= budget_bytes for each in ranking.finalists)


def test_nothing_fits() -> None:
    """Exit code 4, the counts of all reasons, and the nearest miss."""
    space = replace(TINY, microbatch=(1, 32))
    with pytest.raises(InfeasibleError, match="no candidate fits") as caught:
        _search(space, _estimator(1000))
    text = str(caught.value)

    assert caught.value.exit_code == 4
    assert "memory: " in text
    assert "batch not divisible: " in text
    assert "nearest: " in text
    assert "hint: allow more values of tp and pp under parallel, more GPUs, or a smaller microbatch" in text
    counts = [int(num) for num in re.findall(r": (\d+)[,)]", text)]

    assert f"got {sum(counts)} refused" in text


class _Optimist(Estimator):
    """Believes that memory is free."""

    def _rank_memory(self, *_args: object) -> RankMemory:
        return RankMemory(0, 0, 0, 0, 0, 0)


@pytest.fixture
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns believe it too."""
    monkeypatch.setattr(
        "exactmap.sim.planner.survey.memory_bytes", lambda columns, *_: np.zeros((len(columns.shards), 4))
    )


@pytest.mark.usefixtures("free_memory")
def test_the_arena_has_the_last_word() -> None:
    """What the estimate lets through and the finished plan does not is a refusal with its true excess."""
    known = _estimator(100_000)
    optimist = _Optimist(known.model, known.seq, known.formats, known.pricing, known.budget_bytes)
    with pytest.raises(InfeasibleError, match="no candidate fits") as caught:
        _search(estimator=optimist)

    assert "pipeline rank 0 needs 0.0 GiB as a whole plan" in str(caught.value)


@pytest.mark.usefixtures("free_memory")
def test_a_search_goes_on_where_its_best_are_over_memory() -> None:
    """None of the candidates that are walked fits as a whole plan; one further back does."""
    plans = sorted(_everything().finalists, key=lambda each: each.estimate.step_ns)
    budget_bytes = min(each.peak_bytes for each in plans)
    known = _estimator(budget_bytes)
    optimist = _Optimist(known.model, known.seq, known.formats, known.pricing, known.budget_bytes)
    ranking = _search(estimator=optimist, num_walked=1)

    assert ranking.winner.peak_bytes == budget_bytes
    assert len(ranking.finalists) == 1


@pytest.mark.usefixtures("free_memory")
def test_refusals_of_plans_are_counted_with_the_rest() -> None:
    budget_bytes = sorted(each.peak_bytes for each in _everything().finalists)[3]
    known = _estimator(budget_bytes)
    optimist = _Optimist(known.model, known.seq, known.formats, known.pricing, known.budget_bytes)
    ranking = _search(estimator=optimist, num_walked=100, num_finalists=2)
    near = ranking.survey.nearest["memory"]

    assert near.excess > 0
    assert near.candidate not in {each.candidate for each in ranking.estimates}
    assert ranking.num_candidates == len(list(enumerate_candidates(TINY)))


def test_reasons_name_every_other_choice() -> None:
    """Each value that lost is named once, with its best layout; the slowest last, then what never fits."""
    ranking = _search()
    lost = family_bests(ranking)
    named = [choice for entry in lost for choice in entry.choices]
    winner = ranking.winner.candidate

    assert len(named) == len(set(named))
    for name in ("schedule", "pp", "chunks", "microbatch"):
        values = {getattr(getattr(each, "candidate", each), name) for each in enumerate_candidates(TINY)}

        assert {f"{name} {value}" for value in values - {getattr(winner, name)}} <= set(named)
    slower = [entry.slower for entry in lost]

    assert slower == sorted(slower)
    assert all(entry.why for entry in lost)


def test_what_never_fits_is_said() -> None:
    ranking = _search(replace(TINY, microbatch=(1, 32)))
    never = [entry for entry in family_bests(ranking) if entry.best is None]

    assert [entry.choices for entry in never] == [("microbatch 32",)]
    assert "does not divide the batch of 16 sequences" in never[0].why


def test_rejections_are_counted() -> None:
    ranking = _search(replace(TINY, microbatch=(1, 32), pp=(1, 8)))
    counts = rejection_counts(ranking)

    assert sum(count.num for count in counts) == ranking.survey.num_refused
    assert [count.num for count in counts] == sorted((count.num for count in counts), reverse=True)
    assert {"too few GPUs", "batch not divisible", "no pipeline"} >= {count.rule for count in counts}


def test_progress_rises_to_the_end() -> None:
    told: list[float] = []
    _search(num_finalists=3, progress=lambda fraction, _what: told.append(fraction))

    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


def test_stages_weigh_embedding_and_head() -> None:
    """The rank with the head gets fewer layers, as the head's products take time too."""
    estimator = _estimator()
    found = [
        each for each in _everything().estimates if each.candidate.pp == 2 and each.candidate.chunks == 1
    ]
    stages = estimator.stages(found[0].candidate, Mesh(pp=2, dp=found[0].candidate.dp))

    assert sum(stage.num_layers for stage in stages) == TINY.layers
    assert stages[0].embedding
    assert stages[-1].head
    assert stages[0].num_layers >= stages[-1].num_layers


def test_estimate_or_refusal_of_one() -> None:
    candidate = _everything().winner.candidate
    fits, tight = _estimator().price(candidate), _estimator(1).price(candidate)

    assert isinstance(fits, Estimate)
    assert isinstance(tight, Rejection)
    assert tight.excess == fits.memory.total_bytes - 1


def test_the_hint_follows_the_rule_that_was_broken() -> None:
    """Zero bubble on one rank: more memory would not help, another schedule does."""
    space = replace(TINY, pp=(1,), chunks=(1,), schedules=("zb-h1",))
    with pytest.raises(InfeasibleError) as caught:
        _search(space, _estimator(10**12))

    assert "hint: allow 1f1b under parallel.schedule, or more pipeline ranks" in str(caught.value)
