"""Memory of a rank: state by its formats, activations near the published formula, buffers and workspace."""

from __future__ import annotations

import pytest

from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.memory import price_memory
from exactmap.sim.plan.plan import Precision
from exactmap.sim.planner.closed_form import peak_stash_chunks
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.presets import find_preset

BF16 = find_formats("bf16")


def test_state_is_eighteen_bytes_a_parameter() -> None:
    """bf16 weights, fp32 gradients, master weights and two moments; the optimizer's part can be sharded."""
    model = find_preset("llama3-8b")
    whole = StageShape(model.layers, embedding=True, head=True)

    memory = price_memory(model, [whole], 1, 4096, BF16, stash=1)
    sharded = price_memory(model, [whole], 1, 4096, BF16, stash=1, num_shards=8)

    state = memory.parameter_bytes + memory.gradient_bytes + memory.optimizer_bytes
    assert state == pytest.approx(18 * model.num_parameters(), rel=1e-4)
    assert sharded.optimizer_bytes == pytest.approx(memory.optimizer_bytes / 8, rel=1e-6)
    assert sharded.parameter_bytes == pytest.approx(memory.parameter_bytes / 8, rel=1e-6)


def test_stash_is_under_the_published_formula() -> None:
    """34 s b h / t bytes a layer without scores (arXiv:2205.05198); ours stashes less, not half of it."""
    model = find_preset("gpt3-175b")
    layers, tp, seq = 12, 8, 2048

    memory = price_memory(model, [StageShape(layers)], 1, seq, BF16, stash=1, tp=tp)

    published = 34 * seq * model.hidden / tp * layers
    assert 0.5 * published < memory.activation_bytes < published


def test_activations_grow_with_the_microbatches_in_flight_and_shrink_with_the_axes() -> None:
    """Four in flight take four times one; two context-parallel ranks take half."""
    model, stage = find_preset("llama3-8b"), [StageShape(8)]

    one = price_memory(model, stage, 1, 8192, BF16, stash=1)
    four = price_memory(model, stage, 1, 8192, BF16, stash=4)
    halved = price_memory(model, stage, 1, 8192, BF16, stash=4, cp=2)
    split = price_memory(model, stage, 1, 8192, BF16, stash=4, split_backward=True)

    assert four.activation_bytes == 4 * one.activation_bytes
    assert halved.activation_bytes == pytest.approx(four.activation_bytes / 2, rel=1e-3)
    assert split.activation_bytes > four.activation_bytes
    assert four.total_bytes - one.total_bytes == 3 * one.activation_bytes


def test_chunks_on_one_rank_add_their_state() -> None:
    """Two chunks of four layers hold what eight layers hold."""
    model = find_preset("llama3-8b")

    chunks = price_memory(model, [StageShape(4), StageShape(4)], 1, 4096, BF16, stash=2)
    single = price_memory(model, [StageShape(8)], 1, 4096, BF16, stash=1)

    assert chunks.parameter_bytes == single.parameter_bytes
    assert chunks.workspace_bytes == single.workspace_bytes


@pytest.mark.parametrize(("num_microbatches", "rank"), [(12, 0), (12, 3), (12, 7), (4, 0), (4, 4), (4, 7)])
def test_put_off_weight_gradients_are_priced_as_the_plan_lays_them_out(
    num_microbatches: int, rank: int
) -> None:
    """ZB-H1: min(p-r, m) stashes until I, min(p, m) until W, min(r+1, m) results of I: 1 % of the arena."""
    model, pp, tp = find_preset("llama3-70b"), 8, 8
    plan = build_plan(
        model,
        schedule="zb-h1",
        pp=pp,
        num_microbatches=num_microbatches,
        seq=8192,
        tp=tp,
        precision=Precision("bf16", "f32", "bf16", "bf16", "f32"),
    )

    memory = price_memory(
        model,
        [plan.stages[rank]],
        1,
        8192,
        BF16,
        stash=min(pp, num_microbatches),
        split_backward=True,
        stash_until_i=min(pp - rank, num_microbatches),
        num_left_to_w=min(rank + 1, num_microbatches),
        tp=tp,
    )

    assert memory.total_bytes == pytest.approx(plan.arenas[rank].bytes, rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "chunks", "pp"), [("gpipe", 1, 4), ("1f1b", 1, 8), ("interleaved-1f1b", 5, 4)]
)
def test_a_candidate_is_priced_as_its_plan_lays_it_out(schedule: str, chunks: int, pp: int) -> None:
    """Every rank within 1 % of its arena; all state is 18 bytes a parameter."""
    model, num_microbatches = find_preset("llama3-70b"), 16
    plan = build_plan(
        model,
        schedule=schedule,
        pp=pp,
        num_microbatches=num_microbatches,
        seq=8192,
        chunks=chunks,
        tp=8,
        cp=2,
        precision=Precision("bf16", "f32", "bf16", "bf16", "f32"),
    )

    for arena in plan.arenas:
        stash = peak_stash_chunks(schedule, arena.pp, pp, num_microbatches, chunks)
        stages = plan.stages[arena.pp :: pp]
        memory = price_memory(model, stages, 1, 8192, BF16, stash=stash, tp=8, cp=2)
        state = memory.parameter_bytes + memory.gradient_bytes + memory.optimizer_bytes
        regions = [
            r.bytes for r in plan.regions if r.pp == arena.pp and r.kind in {"params", "grads", "moments"}
        ]
        num_elements = sum(b.elements for b in plan.buckets if b.stage % pp == arena.pp)
        assert sum(regions) == state == 18 * num_elements
        assert memory.total_bytes == pytest.approx(arena.bytes, rel=0.01)
