"""The planner's view of a calibrated host."""

from __future__ import annotations

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.host import (
    AllReduceTime,
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
)
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.plan import Precision
from exactmap.sim.planner.candidate import SearchSpace
from exactmap.sim.planner.estimate import Estimator
from exactmap.sim.planner.host_pricing import HostPricing
from exactmap.sim.planner.pricing import Pricing
from exactmap.sim.planner.search import search
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.mapping import Mesh

MODEL = find_preset("byte-llama")
LAYER_NS = {"F": 1_000_000, "I": 1_100_000, "W": 900_000, "B": 1_950_000}


def passes_of(part: str, scale: float) -> tuple[PassSample, ...]:
    return tuple(
        PassSample(
            part=part,  # type: ignore[arg-type]
            step=step,  # type: ignore[arg-type]
            kind="llama",
            hidden=128,
            heads=4,
            kv_heads=2,
            head_dim=32,
            ffn=384,
            vocab=259,
            seq=128,
            microbatch=microbatch,
            ns=round(ns * scale * microbatch),
        )
        for step, ns in LAYER_NS.items()
        for microbatch in (1, 4)
    )


HOST = HostProfile(
    host=HostFacts(cpu="two cores", num_cores=2, blas="a BLAS", engine="1.0"),
    ranks_at_once=2,
    passes=passes_of("layer", 1.0) + passes_of("embedding", 0.01) + passes_of("head", 0.3),
    optimizer=(ElementsTime(elements=1000, ns=2000),),
    norm=(ElementsTime(elements=1000, ns=300),),
    copies=(BytesTime(bytes=65536, ns=2000),),
    awake=HandOver(post_ns=40, wake_ns=160),
    asleep=HandOver(post_ns=8000, wake_ns=20_000),
    all_reduce=(AllReduceTime(ranks=2, bytes=4096, ns=500),),
    instruction_ns=30,
)


def test_a_measured_b_is_no_sum_of_i_and_w() -> None:
    """Where I and W run as one they share what they read; the planner sees what was measured."""
    pricing: Pricing = HostPricing(HOST)

    work = pricing.work_ns(MODEL, [StageShape(2), StageShape(0, head=True)], 2, 128, Mesh(pp=2))

    assert work["F", 0] == 2 * 2_000_000 + 30
    assert work["B", 0] == 2 * 3_900_000 + 30 < work["I", 0] + work["W", 0]
    assert work["W", 1] == pytest.approx(0.3 * 1_800_000 + 30, abs=1)


def test_a_hop_is_a_copy_for_a_rank_that_watches() -> None:
    """40 ns to post, 160 until the receiver goes on, 2000 to copy 64 KiB."""
    assert HostPricing(HOST).hop_ns(65536, Mesh(pp=2)) == 2200


def test_cores_of_one_process_share_no_layer() -> None:
    """Tensor parallelism is refused, as pricing the plan would."""
    with pytest.raises(InvalidInputError, match="pipeline and data parallelism: got tp=2"):
        HostPricing(HOST).work_ns(MODEL, [StageShape(1)], 1, 128, Mesh(tp=2))


def test_the_search_runs_on_a_measured_host() -> None:
    """Its winner is the plan whose replay with the host's own durations takes the time that it says."""
    estimator = Estimator(MODEL, 128, find_formats("fp32"), HostPricing(HOST), 2**32)
    space = SearchSpace(
        tp=(1,),
        cp=(1,),
        pp=(2,),
        chunks=(1, 2),
        microbatch=(1, 2, 4),
        schedules=("gpipe", "1f1b", "interleaved-1f1b", "zb-h1"),
        num_gpus=2,
        global_batch=8,
        layers=MODEL.layers,
        heads=MODEL.heads,
        kv_heads=MODEL.kv_heads,
        seq=128,
        dp=(1,),
    )

    ranking = search(space, estimator, optimizer=OptimizerSettings(), precision=Precision(), num_finalists=3)
    winner = ranking.winner

    plan = winner.plan
    pricing = HostPricing(HOST)
    again = pricing.profile(plan, Mesh(pp=2), {})
    assert winner.step_ns == replay(plan, resolve(plan, again)).summary().makespan_ns
    assert winner.candidate.pp == 2


def test_what_the_prices_rest_on_is_named() -> None:
    """The host, a band that a measurement gave, and no peak."""
    pricing = HostPricing(HOST)

    assert "two cores" in pricing.basis
    assert pricing.peak_flop_per_s == 0
    assert pricing.band == (-0.15, 0.15)
