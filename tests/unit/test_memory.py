"""Memory of a rank: state by its formats, activations near the published formula, buffers and workspace."""

from __future__ import annotations

import pytest

from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.memory import price_memory
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.presets import find_preset

BF16 = find_formats("bf16")


def test_state_is_eighteen_bytes_a_parameter() -> None:
    """bf16 weights, fp32 gradients, master weights and two moments; the optimizer's part can be sharded."""
    model = find_preset("llama3-8b")
    whole = StageShape(model.layers, embedding=True, head=True)

    memory = price_memory(model, [whole], 1, 4096, BF16, stash=1)
    sharded = price_memory(model, [whole], 1, 4096, BF16, stash=1, optimizer_shards=8)

    state = memory.parameter_bytes + memory.gradient_bytes + memory.optimizer_bytes
    assert state == pytest.approx(18 * model.num_parameters(), rel=1e-4)
    assert sharded.optimizer_bytes == pytest.approx(memory.optimizer_bytes / 8, rel=1e-6)
    assert sharded.parameter_bytes == memory.parameter_bytes


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
