"""Parallel axes of a step: groups on the machine, what overlap hides, what each rank holds, what adds up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from exactmap.sim.cost.groups import collective_ns, pipeline_hop, rank_groups, strided_group
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.data_parallel import DataParallel
from exactmap.sim.step.parts import PartGroup, grouped_ns
from exactmap.sim.step.predict import StepPrediction, predict_step
from exactmap.sim.step.stages import price_stages
from exactmap.sim.step.traffic import step_traffic
from exactmap.sim.workload.model import Experts, ModelConfig, ModelKind
from exactmap.sim.workload.training import Batch, Software, Split
from exactmap.topology.hardware import Cluster

_MODEL = ModelConfig(
    ModelKind.LLAMA,
    layers=16,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14336,
    vocab=128_256,
    positions=8192,
    tied=False,
)


def _pod(num_gpus: int, name: str = "h100-8", used: int = 8) -> Cluster:
    return replace(load_cluster(name), num_gpus=num_gpus, used_per_domain=used)


def _setup(split: Split, m: int = 8, **changes: object) -> TrainingSetup:
    setup = TrainingSetup(_MODEL, split, Batch(8192, 1, m), _pod(max(8, split.num_ranks)))
    return replace(setup, **changes)  # type: ignore[arg-type]


def _exposed(prediction: StepPrediction, axis: str) -> float:
    return sum(time for name, time in prediction.parts_ns.items() if name.split(" ")[0] == axis)


def test_groups_of_a_node_lie_on_strides() -> None:
    groups = rank_groups(_pod(512), Split(tp=4, cp=2, pp=8, dp=8, ep=8))
    shapes = {name: (group.num_members, group.per_domain) for name, group in groups.items()}
    assert shapes["tp"] == (4, 4)
    assert shapes["cp"] == (2, 2)
    assert shapes["ep"] == (8, 8)
    assert shapes["dp"] == (16, 2)
    assert shapes["expert_dp"] == (8, 1)
    assert shapes["pp"] == (8, 1)


def test_tensor_parallelism_beyond_a_node_leaves_it() -> None:
    # Four interfaces of 200 Gb/s for eight GPUs.
    cluster = _pod(64, "a100-8")
    cluster = replace(cluster, scale_out=replace(cluster.scale_out, bytes_per_s=12_500_000_000))
    inside, beyond = (strided_group(cluster, size, 1) for size in (8, 16))
    assert (inside.num_domains, beyond.per_domain, beyond.num_domains) == (1, 8, 2)
    assert collective_ns(cluster, "all_reduce", beyond, 1e8) > 1.2 * collective_ns(
        cluster, "all_reduce", inside, 1e8
    )


def test_groups_that_interleave_have_an_interface_for_each_member() -> None:
    # 8 data ranks on 8 nodes, one per node (7 sister groups have the other interfaces), against 16 on 8.
    cluster = _pod(64)
    alone, pairs = strided_group(cluster, 8, 8), strided_group(cluster, 16, 4)
    assert (alone.per_domain, pairs.per_domain) == (1, 2)
    time = collective_ns(cluster, "reduce_scatter", alone, 8e9)
    one_interface = 8e9 * 7 / 8 / cluster.scale_out_bytes_per_s(1) * 1e9
    assert time == pytest.approx(one_interface, rel=0.05)
    assert collective_ns(cluster, "reduce_scatter", pairs, 8e9) == pytest.approx(time / 2, rel=0.15)


def test_a_rack_of_72_keeps_64_neighbours() -> None:
    groups = rank_groups(_pod(576, "gb200-nvl72", 64), Split(tp=2, pp=4, dp=64, ep=64))
    assert (groups["ep"].num_domains, groups["dp"].per_domain, groups["dp"].num_domains) == (1, 32, 2)


def test_shards_and_replicas_of_hybrid_sharding() -> None:
    groups = rank_groups(_pod(64), Split(dp=64, zero=3, shards=8))
    assert (groups["shard"].num_members, groups["shard"].num_domains) == (8, 1)
    assert (groups["replica"].num_members, groups["replica"].per_domain) == (8, 1)


def test_a_stage_inside_a_domain_is_reached_over_nvlink() -> None:
    split = Split(tp=2, pp=4, dp=1)
    near = pipeline_hop(_pod(8), split, 0, 1, 1e7)
    far = pipeline_hop(_pod(64), Split(tp=8, pp=8), 0, 1, 1e7)
    assert (near.tier.value, far.tier.value) == ("scale_up", "scale_out")
    assert near.total_ns < far.total_ns


@pytest.mark.parametrize(
    "split",
    [
        Split(),
        Split(tp=8, sequence_parallel=True),
        Split(tp=2, cp=2, dp=2, zero=1),
        Split(tp=2, pp=4, dp=2, chunks=2, zero=1, sequence_parallel=True),
        Split(pp=8, dp=8),
        Split(dp=64, zero=3),
        Split(dp=64, zero=3, shards=8),
    ],
)
def test_parts_sum_to_the_step(split: Split) -> None:
    prediction = predict_step(_setup(split))
    assert sum(prediction.parts_ns.values()) == pytest.approx(prediction.step_ns)
    grouped = grouped_ns(prediction.parts_ns)
    assert sum(grouped.values()) == pytest.approx(prediction.step_ns)
    assert grouped[PartGroup.COMPUTE] > 0.4 * prediction.step_ns


def test_overlap_hides_and_never_costs_more() -> None:
    split = Split(tp=4, dp=16, zero=1, sequence_parallel=True)
    plain = predict_step(_setup(split))
    tensor = predict_step(_setup(split, software=Software(overlap_tp=True)))
    data = predict_step(_setup(split, software=Software(overlap_grad=True, overlap_param=True)))
    assert 0 < _exposed(tensor, "tp") < 0.6 * _exposed(plain, "tp")
    assert 0 < _exposed(data, "dp") < 0.5 * _exposed(plain, "dp")
    assert tensor.step_ns < plain.step_ns
    assert data.step_ns < plain.step_ns


def test_a_ring_hides_behind_attention_and_heads_for_tokens_do_not() -> None:
    ring, swap = (
        predict_step(_setup(Split(cp=4, dp=2, cp_exchange=how), m=4)) for how in ("ring", "all_to_all")
    )
    assert _exposed(ring, "cp") < _exposed(swap, "cp")
    assert ring.parts_ns["overlap slowdown"] > 0


def test_sharded_parameters_hide_while_layers_are_long_enough() -> None:
    split = Split(dp=64, zero=3)
    short, long = (predict_step(_setup(split, m=1, batch=Batch(seq, 1, 1))) for seq in (512, 8192))
    assert _exposed(short, "dp") > 0.3 * short.step_ns
    assert _exposed(long, "dp") < 0.1 * long.step_ns


def test_more_data_ranks_with_the_same_work_never_take_less() -> None:
    times = [predict_step(_setup(Split(tp=8, dp=dp, zero=1))).step_ns for dp in (1, 2, 8, 64)]
    assert all(less <= more for less, more in pairwise(times))


def test_ranks_hold_their_own_parameters_and_no_average() -> None:
    setup = _setup(Split(tp=2, pp=4, dp=2))
    plan = price_stages(LayerClock(setup))
    layer = 4 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336) / 2
    vocab = 128_256 * 4096 / 2
    held = [sum(stage.parameters for stage, _ in each) for each in plan.held]
    assert held == [layer + vocab, layer, layer, layer + vocab]


def test_experts_are_reduced_over_the_ranks_that_hold_the_same() -> None:
    experts = Experts(64, 8, 1024)
    setup = _setup(Split(dp=64, ep=8, zero=1), model=replace(_MODEL, experts=experts))
    plan = price_stages(LayerClock(setup))
    stage = plan.stages[0]
    assert stage.expert == 16 * 8 * 3 * 4096 * 1024
    data = DataParallel(LayerClock(setup))
    wide = DataParallel(LayerClock(replace(setup, split=replace(setup.split, ep=64))))
    assert data.groups["expert_dp"].num_members == 8
    assert wide.groups["expert_dp"].num_members == 1
    assert data.tails(plan, (0.0,)).reduce_ns > wide.tails(plan, (0.0,)).reduce_ns


def test_traffic_names_axis_network_and_bytes() -> None:
    setup = _setup(Split(tp=8, pp=4, dp=2, zero=1, sequence_parallel=True))
    traffic = {each.axis: each for each in step_traffic(setup)}
    assert list(traffic) == ["tp", "dp", "pp"]
    assert (traffic["tp"].tier, traffic["tp"].fabric_bytes) == ("scale_up", 0.0)
    assert (traffic["dp"].tier, traffic["dp"].fabric_tier) == ("scale_out", 1)
    assert traffic["pp"].num_bytes == 2 * 8 * 8192 * 4096 * 2 / 8
    # Gather and scatter, twice a layer and once for the head, forward and backward; a gather for weights.
    exchange = 8192 * 4096 * 2 * 7 / 8
    assert traffic["tp"].num_bytes == pytest.approx(8 * (4 * 2 + 1) * 5 * exchange)
