"""Steps of random setups: parts add up, none is negative, more work or less machine is never faster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.parts import grouped_ns
from exactmap.sim.step.predict import predict_step
from exactmap.sim.step.traffic import step_traffic
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind, StateSpace
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split
from exactmap.topology.hardware import Cluster

_CLUSTERS = {name: load_cluster(name) for name in ("a100-8", "h100-8", "b200-8", "gb200-nvl72")}
_PRECISIONS = (
    Precision(),
    Precision("fp8", "fp8", "tensor"),
    Precision("fp8", "fp8", "mx", grad_bytes=2, reduce_bytes=2),
    Precision("bf16", "bf16", param_bytes=4, master_bytes=0, autocast=True),
)
_FAMILIES = ("megatron", "nemo", "megatron-bridge", "torchtitan", "composer", "jax", "exactmap")
_RECOMPUTES = (
    Recompute(),
    Recompute("full"),
    Recompute("modules", frozenset({"core_attn"})),
    Recompute("modules", frozenset({"layernorm", "moe_act"})),
    Recompute("modules", frozenset({"save_products"})),
)


@st.composite
def _models(draw: st.DrawFn) -> ModelConfig:
    heads = draw(st.sampled_from([16, 32, 64]))
    model = ModelConfig(
        draw(st.sampled_from(list(ModelKind))),
        layers=draw(st.sampled_from([16, 24, 32])),
        hidden=heads * 128,
        heads=heads,
        kv_heads=draw(st.sampled_from([8, heads])),
        head_dim=128,
        ffn=heads * 384,
        vocab=draw(st.sampled_from([32_000, 50_257, 128_256])),
        positions=8192,
        tied=draw(st.booleans()),
    )
    match draw(st.integers(0, 5)):
        case 0:
            return replace(model, latent=LatentAttention(1536, 512, 128, 64, 128), kv_heads=heads)
        case 1 | 2:
            shared, first = draw(st.sampled_from([(0, 0), (1024, 1)]))
            return replace(model, experts=Experts(64, 4, 1024, shared_ffn=shared, first_dense=first))
        case 3:
            return replace(model, window=512, window_every=2)
        case 4:
            return replace(
                model, pattern="M-*-" * (model.layers // 4), state_space=StateSpace(64, 64, 128, 8)
            )
        case _:
            return model


@st.composite
def _setups(draw: st.DrawFn) -> TrainingSetup:
    model = draw(_models())
    tp, pp, cp, dp = (
        draw(st.sampled_from(sizes)) for sizes in ([1, 2, 4, 8], [1, 2, 4, 8], [1, 2], [1, 2, 8])
    )
    chunks = draw(st.sampled_from([1, 2])) if pp > 1 else 1
    ep = (
        draw(st.sampled_from([size for size in (1, 2, 4, 8) if (tp * cp * dp) % size == 0]))
        if model.experts
        else 1
    )
    split = Split(
        tp=tp,
        cp=cp,
        pp=pp,
        dp=dp,
        ep=ep,
        chunks=chunks,
        sequence_parallel=tp > 1 and draw(st.booleans()),
        zero=draw(st.integers(0, 3)),
        cp_exchange=draw(st.sampled_from(["ring", "all_to_all", "all_gather"])),
    )
    name = draw(st.sampled_from(sorted(_CLUSTERS)))
    domain = _CLUSTERS[name].scale_up.domain_size
    size = -(-max(split.num_ranks, domain) // domain) * domain
    switches = {
        each: draw(st.booleans()) for each in ("overlap_grad", "overlap_param", "overlap_tp", "overlap_ep")
    }
    software = Software(
        draw(st.sampled_from(_FAMILIES)),
        overlap_p2p=draw(st.booleans()),
        dispatcher=draw(st.sampled_from(["all_to_all", "deepep", "hybridep", "all_gather"])),
        **switches,
    )
    return TrainingSetup(
        model,
        split,
        Batch(
            draw(st.sampled_from([2048, 8192])),
            draw(st.sampled_from([1, 2])),
            draw(st.sampled_from([1, 4, 32])),
        ),
        replace(_CLUSTERS[name], num_gpus=size),
        draw(st.sampled_from(_PRECISIONS)) if "fp8" in _CLUSTERS[name].gpu.peak_flop_per_s else Precision(),
        draw(st.sampled_from(_RECOMPUTES)),
        software,
        schedule="1F1B" if pp > 1 else "none",
    )


@settings(max_examples=120)
@given(_setups())
def test_what_a_step_is_made_of_adds_up(setup: TrainingSetup) -> None:
    found = predict_step(setup)

    assert sum(found.parts_ns.values()) == pytest.approx(found.step_ns)
    assert sum(grouped_ns(found.parts_ns).values()) == pytest.approx(found.step_ns)
    assert min(found.parts_ns.values()) >= 0.0
    assert 0.0 < found.low_ns <= found.step_ns <= found.high_ns
    assert found.memory is not None
    assert sum(found.memory.parts_bytes.values()) == pytest.approx(found.memory_bytes)
    assert min(found.memory.parts_bytes.values()) >= 0.0
    for each in step_traffic(setup):
        assert 0.0 <= each.fabric_bytes <= each.num_bytes * (1 + 1e-9), each.axis


@settings(max_examples=60)
@given(_setups())
def test_more_work_never_takes_less(setup: TrainingSetup) -> None:
    step = predict_step(setup).step_ns
    batch, model = setup.batch, setup.model
    more = {
        "microbatches": replace(setup, batch=replace(batch, num_microbatches=batch.num_microbatches + 1)),
        "sequences": replace(setup, batch=replace(batch, microbatch=batch.microbatch * 2)),
        "tokens": replace(setup, batch=replace(batch, seq=batch.seq * 2)),
        "vocabulary": replace(setup, model=replace(model, vocab=model.vocab * 2)),
        "layers": replace(setup, model=replace(model, layers=model.layers * 2, pattern=model.pattern * 2)),
    }
    for name, larger in more.items():
        assert predict_step(larger).step_ns >= step * (1 - 1e-9), name


def _slower(cluster: Cluster) -> dict[str, Cluster]:
    """The same machine with half of one thing."""
    up, out = cluster.scale_up, cluster.scale_out
    return {
        "interface": replace(cluster, scale_out=replace(out, bytes_per_s=out.bytes_per_s // 2)),
        "scale-up": replace(cluster, scale_up=replace(up, bytes_per_s=up.bytes_per_s // 2)),
    }


@settings(max_examples=60)
@given(_setups())
def test_a_slower_network_never_helps(setup: TrainingSetup) -> None:
    step = predict_step(setup).step_ns
    for name, cluster in _slower(setup.cluster).items():
        assert predict_step(replace(setup, cluster=cluster)).step_ns >= step * (1 - 1e-9), name


@settings(max_examples=60)
@given(_setups())
def test_recomputing_takes_longer_and_keeps_less(setup: TrainingSetup) -> None:
    none = predict_step(replace(setup, recompute=Recompute()))
    for policy in _RECOMPUTES[1:]:
        found = predict_step(replace(setup, recompute=policy))

        assert found.memory is not None
        assert none.memory is not None
        assert found.step_ns >= none.step_ns * (1 - 1e-9)
        assert found.memory.parts_bytes["activations"] <= none.memory.parts_bytes["activations"] * (1 + 1e-9)


@settings(max_examples=60)
@given(_setups())
def test_each_stage_of_zero_keeps_less_on_every_rank(setup: TrainingSetup) -> None:
    """Stage 3 as well, but for the layers that it gathers."""
    found = [predict_step(replace(setup, split=replace(setup.split, zero=zero))).memory for zero in range(3)]
    ranks = [memory.ranks_bytes for memory in found if memory is not None]

    assert len(ranks) == 3
    for of_rank in zip(*ranks, strict=True):
        assert list(of_rank) == sorted(of_rank, reverse=True)
