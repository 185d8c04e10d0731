"""Parameters of a stage: names, places, start values, updates, and their agreement with PyTorch."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference_numpy as ref
from numerics_library import ALL_PARTS, PARTS, Buffers, Stage, aligned, config_of

GOLDEN = Path(__file__).parents[1] / "golden" / "torch"
GPT2 = ref.Model("gpt2", 4, 40, 4, 4, 10, 100, 61, 24)
LLAMA = ref.Model("llama", 4, 40, 4, 2, 10, 100, 61, 24)


@pytest.mark.parametrize("model", [GPT2, LLAMA, replace(GPT2, tied=True), replace(LLAMA, tied=True)])
def test_tensors_have_hugging_face_names_and_shapes(numerics: ctypes.CDLL, model: ref.Model) -> None:
    """The whole model as one stage holds exactly the reference's tensors; matrices alone decay."""
    want = {name: value.shape for name, value in ref.initial(model, np.random.default_rng(0)).items()}
    with Stage(numerics, config_of(model, 1, 8)) as stage:
        got = {p.name.decode(): tuple(p.shape[: p.ndim]) for p in stage.table}
        decays = {p.name.decode(): bool(p.decay) for p in stage.table}

    assert got == want
    assert decays == {name: len(shape) == 2 for name, shape in want.items()}


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_tensors_of_a_bucket_follow_each_other_aligned(numerics: ctypes.CDLL, model: ref.Model) -> None:
    """Each starts at a multiple of 16 floats, none overlaps, the bucket ends after the last's padding."""
    with Stage(numerics, config_of(model, 1, 8)) as stage:
        for parts in (ALL_PARTS, PARTS["layers"], PARTS["wte"] | PARTS["norm"], PARTS["head"]):
            table, floats = stage.layout(parts)
            end = 0
            for param in table:
                assert param.offset == end
                end = -(-(param.offset + int(np.prod(param.shape[:2]))) // 16) * 16
            assert floats == end


def test_start_values_do_not_depend_on_the_partition(numerics: ctypes.CDLL) -> None:
    """A layer's weights are the same in a stage of its own and in the whole model; padding is zero."""
    for model in (GPT2, LLAMA):
        with (
            Stage(numerics, config_of(model, 1, 8)) as whole,
            Stage(numerics, config_of(model, 1, 8, first=2, num=1, embedding=False, head=False)) as part,
            Stage(numerics, config_of(model, 1, 8)) as other,
        ):
            whole.params[:] = np.nan
            part.params[:] = np.nan
            whole.init(5)
            part.init(5)
            other.init(6)
            everything = whole.named(whole.params)
            for name, value in part.named(part.params).items():
                np.testing.assert_array_equal(value, everything[name])
                if value.ndim == 2:
                    assert not np.array_equal(value, other.named(other.params)[name])
            assert np.isfinite(whole.params).all()


def test_start_values_have_the_stated_spread(numerics: ctypes.CDLL) -> None:
    """Matrices 0.02, residual projections 0.02 / sqrt(2 layers), gains 1, biases 0."""
    model = ref.Model("gpt2", 8, 128, 4, 4, 32, 512, 257, 64)
    with Stage(numerics, config_of(model, 1, 8)) as stage:
        stage.init(3)
        for name, value in stage.named(stage.params).items():
            if value.ndim == 2:
                spread = 0.02 / 4.0 if "c_proj" in name else 0.02
                assert value.std() == pytest.approx(spread, rel=0.03), name
                assert abs(value.mean()) < 4 * spread / np.sqrt(value.size), name
            else:
                assert (value == float("ln" in name and name.endswith("weight"))).all(), name


def test_a_shard_updates_like_the_whole(numerics: ctypes.CDLL) -> None:
    """AdamW on two shards of a bucket gives the bits of AdamW on the bucket; padding stays zero."""
    hyper = ref.AdamW()
    with Stage(numerics, config_of(LLAMA, 1, 8)) as one, Stage(numerics, config_of(LLAMA, 1, 8)) as two:
        cut = one.num_floats // 32 * 16
        moments = [aligned(one.num_floats) for _ in range(4)]
        for stage in (one, two):
            stage.init(1)
            for index, view in enumerate(stage.named(stage.grads).values()):
                view[:] = np.random.default_rng(index).normal(0.0, 1.0, view.shape)
        one.adamw(hyper, 1, moments[0], moments[1], factor=0.5)
        two.adamw(hyper, 1, moments[2], moments[3], factor=0.5, end=cut)
        two.adamw(hyper, 1, moments[2], moments[3], factor=0.5, begin=cut)

        np.testing.assert_array_equal(one.params, two.params)
        used = np.zeros(one.num_floats, bool)
        for param in one.table:
            used[param.offset : param.offset + int(np.prod(param.shape[:2]))] = True
        assert (one.params[~used] == 0.0).all()
        assert one.sum_squares() == pytest.approx(float((one.grads.astype(np.float64) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_training_equals_the_reference(numerics: ctypes.CDLL, kind: str) -> None:
    """Twenty clipped AdamW steps on changing batches: each loss within 1e-5 of float64's."""
    model = ref.Model(kind, 2, 32, 4, 2 if kind == "llama" else 4, 8, 64, 61, 24)
    hyper = ref.AdamW(lr=1e-2, clip=1.0)
    rng = np.random.default_rng(9)
    with Stage(numerics, config_of(model, 4, 24)) as stage:
        stage.init(2)
        params = {name: value.astype(np.float64) for name, value in stage.named(stage.params).items()}
        first = {name: np.zeros_like(value) for name, value in params.items()}
        second = {name: np.zeros_like(value) for name, value in params.items()}
        m, v, buffers = aligned(stage.num_floats), aligned(stage.num_floats), Buffers(stage)
        for step in range(1, 21):
            tokens = rng.integers(0, 61, (4, 24)).astype(np.int32)
            targets = ((tokens * 7 + 3) % 61).astype(np.int32)
            want, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 96)
            norm = ref.adamw_step(params, grads, first, second, hyper, step)
            for letter in "FB":
                stage.run(letter, buffers, tokens=tokens, targets=targets, scale=1 / 96)
            got_norm = np.sqrt(stage.sum_squares())
            stage.adamw(hyper, step, m, v, factor=min(1.0, hyper.clip / got_norm))

            assert buffers.loss[0] == pytest.approx(want, rel=1e-5), step
            assert got_norm == pytest.approx(norm, rel=1e-4), step


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_pytorch_agrees(numerics: ctypes.CDLL, kind: str) -> None:
    """Golden files of transformers' models (golden/torch/make.py): logits, loss, gradients, ten losses."""
    golden = np.load(GOLDEN / f"{kind}.npz")
    model = ref.Model(
        kind,
        2,
        24,
        3 if kind == "gpt2" else 4,
        3 if kind == "gpt2" else 2,
        8,
        40,
        61,
        24,
        tied=kind == "gpt2",
    )
    tokens, targets = golden["tokens"].astype(np.int32), golden["targets"].astype(np.int32)
    lr, beta1, beta2, eps, decay, clip = golden["hyper"]
    hyper = ref.AdamW(lr, beta1, beta2, eps, decay, clip)
    params = {name[2:]: golden[name].astype(np.float64) for name in golden.files if name.startswith("p/")}
    want = {name[2:]: golden[name].astype(np.float64) for name in golden.files if name.startswith("g/")}
    loss, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 48)
    # transformers computes Llama's RMSNorm and angles in float32, whatever the type of the model
    limit = 1e-10 if kind == "gpt2" else 1e-6
    assert loss / 48 == pytest.approx(float(golden["loss"]), rel=limit)
    for name, value in want.items():
        assert np.linalg.norm(grads[name] - value) <= 1e-6 * np.linalg.norm(value), name
    wide = ref.logits(model, params, tokens)
    assert np.abs(wide - golden["logits"]).max() <= limit * np.abs(wide).max()

    with Stage(numerics, config_of(model, 2, 24)) as stage:
        stage.set_params(params)
        buffers = Buffers(stage)
        single = stage.logits(buffers, all_positions=True, last_position=0, tokens=tokens)
        np.testing.assert_allclose(single.reshape(2, 24, 61), golden["logits"], rtol=1e-4, atol=1e-5)
        m, v = aligned(stage.num_floats), aligned(stage.num_floats)
        for step, expected in enumerate(golden["losses"], start=1):
            for letter in "FB":
                stage.run(letter, buffers, tokens=tokens, targets=targets, scale=1 / 48)
            if step == 1:
                for name, value in stage.named(stage.grads).items():
                    assert np.linalg.norm(value - want[name]) <= 1e-5 * np.linalg.norm(want[name]), name
            assert buffers.loss[0] / 48 == pytest.approx(expected, rel=1e-5), step
            factor = min(1.0, hyper.clip / (np.sqrt(stage.sum_squares()) + 1e-6))
            stage.adamw(hyper, step, m, v, factor=factor)
