"""Operators: FLOPs by hand, by the 6 N rule and by published totals; bytes that divide as the axes do."""

from __future__ import annotations

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.operators import (
    OperatorKind,
    Pass,
    attention_forward_flop,
    head_operators,
    layer_operators,
    model_flop,
    model_flop_per_token,
    stage_operators,
    total_flop,
)
from exactmap.sim.workload.presets import find_preset

LLAMA = find_preset("llama3-8b")


def test_model_flops_follow_the_six_n_rule() -> None:
    """6 per matrix parameter and token, attention apart: the embedding table is looked up, not multiplied."""
    seq = 8192
    attention = 3 * LLAMA.layers * attention_forward_flop(seq, 32, 128)
    multiplied = LLAMA.num_parameters() - LLAMA.vocab * LLAMA.hidden - (2 * LLAMA.layers + 1) * LLAMA.hidden

    assert model_flop(LLAMA, seq, 1) - attention == 6 * multiplied * seq


def test_model_flops_match_a_published_total() -> None:
    """Llama 3 405B: 3.8e25 FLOPs for 15.6 T tokens by 6 N D (arXiv:2407.21783); attention adds some."""
    flop = model_flop_per_token(find_preset("llama3-405b"), 8192) * 15.6e12

    assert flop == pytest.approx(3.8e25, rel=0.06)


def test_model_flops_match_the_formula_of_megatron() -> None:
    """96 B s l h^2 (1 + s/6h + V/16lh) of arXiv:2104.04473 counts full squares and a forward more."""
    model, seq = find_preset("gpt3-175b"), 2048
    h, layers = model.hidden, model.layers
    hardware = 96 * seq * layers * h**2 * (1 + seq / (6 * h) + model.vocab / (16 * layers * h))
    full_square = 3 * layers * attention_forward_flop(seq, model.heads, model.head_dim)

    assert model_flop(model, seq, 1) + full_square == pytest.approx(hardware * 3 / 4, rel=0.002)


def test_every_product_runs_once_in_each_pass() -> None:
    """F, I and W of a layer have the same products' FLOPs; attention's backward has 5/2 of its forward."""
    flops = {
        step: {op.name: op.flop for op in layer_operators(LLAMA, step, 2, 4096) if op.flop} for step in Pass
    }

    for name in ("qkv", "projection", "up", "down"):
        assert flops[Pass.F][name] == flops[Pass.I][name] == flops[Pass.W][name]
    assert sum(flops[Pass.W].values()) == 2 * 2 * 4096 * LLAMA.layer_matrix_parameters()
    assert flops[Pass.I]["attention"] == flops[Pass.F]["attention"] * 5 // 2
    assert "attention" not in flops[Pass.W]


def test_hardware_flops_exceed_model_flops_by_what_is_computed_again() -> None:
    """Half an attention forward per layer, and the logits once more."""
    whole = StageShape(LLAMA.layers, embedding=True, head=True)
    executed = sum(total_flop(stage_operators(LLAMA, whole, step, 1, 4096)) for step in Pass)

    again = LLAMA.layers * attention_forward_flop(4096, 32, 128) // 2 + 2 * 4096 * LLAMA.hidden * LLAMA.vocab

    assert executed == model_flop(LLAMA, 4096, 1) + again


@pytest.mark.parametrize("step", list(Pass))
def test_tensor_and_context_parallel_ranks_share_the_work(step: Pass) -> None:
    """Eight tensor-parallel and two context-parallel ranks do a sixteenth each; nothing is lost."""
    whole = total_flop(layer_operators(LLAMA, step, 1, 8192) + head_operators(LLAMA, step, 1, 8192))
    share = total_flop(
        layer_operators(LLAMA, step, 1, 8192, tp=8, cp=2) + head_operators(LLAMA, step, 1, 8192, tp=8, cp=2)
    )

    assert share * 16 == whole


def test_shapes_of_products_multiply_to_their_flops() -> None:
    """2 m n k, whichever pass."""
    for step in Pass:
        for op in layer_operators(LLAMA, step, 1, 4096, tp=4) + head_operators(LLAMA, step, 1, 4096, tp=4):
            if op.kind is OperatorKind.GEMM:
                assert op.flop == 2 * op.m * op.n * op.k
                assert op.read_bytes > 0
                assert op.write_bytes > 0


def test_weight_gradients_are_accumulated_in_wide_numbers() -> None:
    """The product of W reads and writes the gradient of its weight at 4 bytes."""
    down = next(op for op in layer_operators(LLAMA, Pass.W, 1, 4096) if op.name == "down")

    assert down.write_bytes == LLAMA.ffn * LLAMA.hidden * 4
    assert down.read_bytes == down.write_bytes + 4096 * (LLAMA.ffn + LLAMA.hidden) * 2


def test_empty_microbatches_are_refused() -> None:
    """Counts start at 1."""
    with pytest.raises(InvalidInputError, match="microbatch: count must be positive"):
        layer_operators(LLAMA, Pass.F, 0, 4096)
