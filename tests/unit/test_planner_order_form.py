"""Schedules without a closed form: priced by their orders, and as near to their plans as those with one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.plan.plan import Precision
from exactmap.sim.planner.candidate import SearchSpace, enumerate_candidates
from exactmap.sim.planner.closed_form import CLOSED_FORMS, peak_stash_chunks
from exactmap.sim.planner.estimate import Estimator
from exactmap.sim.planner.order_form import order_form, walked_time_ns
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.planner.search import search
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.workload.presets import find_preset

SCENARIOS = Path(__file__).parents[2] / "scenarios"

# Schedules that the search walks and that lowering makes plans of without braids.
WALKED = ("eager-1f1b", "breadth-first", "zb-h2", "interleaved-zb", "zb-v", "v-half", "v-min", "hanayo")


def space(*schedules: str) -> SearchSpace:
    return SearchSpace(
        tp=(1,),
        cp=(1,),
        pp=(1, 2),
        chunks=(1, 2),
        microbatch=(1, 2),
        schedules=schedules,
        num_gpus=4,
        global_batch=16,
        layers=4,
        heads=4,
        kv_heads=4,
        seq=64,
    )


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_an_order_needs_what_its_closed_form_says(name: str) -> None:
    for p, m, v in product((1, 2, 4, 5), (1, 3, 4, 8, 12), (1, 2, 3)):
        if SCHEDULES[name].many_chunks != (v > 1) or (v > 1 and m > p and m % p):
            continue
        form = order_form(name, p, m, v)
        assert form.stash == tuple(peak_stash_chunks(name, rank, p, m, v) for rank in range(p))


@pytest.mark.parametrize("name", ["eager-1f1b", "breadth-first", "zb-h2", "interleaved-zb", "zb-v", "v-half"])
def test_a_long_step_goes_on_as_a_short_one(name: str) -> None:
    """Equal passes: walked in full and carried on from 2p and 3p microbatches, the time is the same."""
    v = SCHEDULES[name].fixed_chunks or (2 if SCHEDULES[name].many_chunks else 1)
    for p, turns in product((2, 3, 4), (1, 2, 4, 7)):
        times = WorkTimes.unit(p * v, 1000, 10)
        whole_ns = walk(make_order(name, p, turns * p, v), times).makespan_ns
        form_ns = walked_time_ns(
            name, times.work_ns, num_ranks=p, num_microbatches=turns * p, chunks=v, hop_ns=10
        )
        assert form_ns == whole_ns


@pytest.mark.parametrize("name", WALKED)
def test_a_scenario_may_name_any_schedule_that_can_be_walked(name: str) -> None:
    """Its estimate comes as close to the finished plan as a closed form does."""
    cluster = load_scenario(SCENARIOS / "cpu-quick.yaml", ["cluster.num_gpus=4"]).cluster
    formats = find_formats("fp32")
    estimator = Estimator(find_preset("byte-tiny"), 64, formats, ClusterPricing(cluster, formats), 2**31)

    ranking = search(
        space(name),
        estimator,
        optimizer=OptimizerSettings(),
        precision=Precision("f32", "f32", "f32", "f32", "f32"),
    )

    assert {each.candidate.schedule for each in ranking.finalists} == {name}
    for finalist in ranking.finalists:
        assert 0.6 < finalist.estimate.step_ns / finalist.step_ns <= 1.0
        assert 0.9 < finalist.estimate.memory.total_bytes / finalist.peak_bytes < 1.15


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("seq-1f1b", "seq-1f1b, which cuts sequences into slices"),
        ("chimera", "chimera, which holds each stage on two ranks"),
        ("1f1b-offload", "1f1b-offload, which is made for a stash limit"),
    ],
)
def test_what_the_search_cannot_price_is_refused_with_what_it_can(name: str, why: str) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"cannot price this schedule: got {why}, expected gpipe, 1f1b"
    ):
        space(name)


def test_a_layout_that_its_schedule_does_not_take_falls_away_with_the_reason() -> None:
    """DualPipeV wants two microbatches per rank."""
    wide = replace(space("dualpipe-v"), dp=(8,), num_gpus=16)
    reasons = {getattr(found, "why", "") for found in enumerate_candidates(wide)}

    assert "at least 2 microbatches per rank are needed, got 2" in reasons
