"""Stage passes of the C engine against the float64 reference: values, gradients, cuts, fused passes."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import reference_numpy as ref
from numerics_case import Tokens, assert_close_gradients, batch, rounded
from numerics_library import ALL_PARTS, PARTS, Buffers, NumericsError, Stage, config_of
from numpy.typing import NDArray

# (model, microbatch, seq): tiles cut short, vocabularies 257 and 260, head sizes 10 to 128, groups of 1, 2
# and 4, sequences beyond one tile of keys (256), widths that are no multiple of a vector.
SHAPES = {
    "gpt2": (ref.Model("gpt2", 3, 64, 4, 4, 16, 256, 257, 64), 2, 64),
    "gpt2 tied odd": (ref.Model("gpt2", 2, 40, 2, 2, 20, 100, 260, 100, tied=True), 3, 77),
    "gpt2 grouped": (ref.Model("gpt2", 2, 48, 4, 2, 32, 96, 257, 33), 1, 33),
    "llama": (ref.Model("llama", 3, 64, 4, 2, 16, 160, 257, 130), 1, 130),
    "llama tied": (ref.Model("llama", 2, 96, 4, 1, 24, 200, 260, 65, tied=True), 2, 65),
    "llama padded": (ref.Model("llama", 2, 30, 3, 1, 10, 50, 257, 19), 3, 19),
    "llama wide head": (ref.Model("llama", 1, 128, 2, 2, 128, 128, 260, 129), 1, 129),
    "llama long": (ref.Model("llama", 1, 32, 2, 1, 16, 64, 257, 530, rope_theta=500000.0), 1, 530),
    "one token": (ref.Model("gpt2", 1, 16, 1, 1, 16, 16, 3, 4), 1, 1),
}


@pytest.mark.parametrize("gemm", [0, 2], ids=["best", "portable"])
@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_whole_model_equals_the_reference(
    numerics: ctypes.CDLL, case: tuple[ref.Model, int, int], gemm: int
) -> None:
    """Loss within 1e-6, each gradient within 1e-4 of its norm; nothing unwritten (NaN) is read."""
    model, microbatch, seq = case
    params = rounded(model, 1)
    tokens, targets = batch(model, microbatch, seq)
    scale = 1.0 / tokens.size
    loss, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, scale)
    item = {"tokens": tokens, "targets": targets, "scale": scale}

    with Stage(numerics, config_of(model, microbatch, seq, gemm=gemm)) as stage:
        stage.set_params(params)
        buffers = Buffers(stage)
        for kind in "FIW":
            stage.run(kind, buffers, **item)

        assert buffers.loss[0] == pytest.approx(loss, rel=1e-6)
        assert_close_gradients(stage.named(stage.grads), grads)


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_b_equals_i_then_w_bit_by_bit(numerics: ctypes.CDLL, case: tuple[ref.Model, int, int]) -> None:
    """The fused pass needs no g, and gives the same bits."""
    model, microbatch, seq = case
    tokens, targets = batch(model, microbatch, seq)
    item = {"tokens": tokens, "targets": targets, "scale": 1.0 / tokens.size}

    with Stage(numerics, config_of(model, microbatch, seq)) as stage:
        stage.set_params(rounded(model, 2))
        buffers = Buffers(stage)
        for kind in "FIW":
            stage.run(kind, buffers, **item)
        split = stage.grads.copy()
        stage.grads[:] = 0
        buffers.g[:] = np.nan
        stage.run("F", buffers, **item)
        stage.run("B", buffers, **item)

        np.testing.assert_array_equal(split, stage.grads)


class Pipeline:
    """A model cut into stages, run one after the other as a plan would."""

    def __init__(
        self, lib: ctypes.CDLL, model: ref.Model, microbatch: int, seq: int, cuts: list[int]
    ) -> None:
        self.shape = (microbatch, seq, model.hidden)
        starts, ends = [0, *cuts], [*cuts, model.layers]
        last = len(cuts)
        configs = [
            config_of(
                model,
                microbatch,
                seq,
                first=starts[i],
                num=ends[i] - starts[i],
                embedding=i == 0,
                head=i == last,
            )
            for i in range(last + 1)
        ]
        self.stages = [Stage(lib, config) for config in configs]

    def load(self, params: ref.Params) -> None:
        for stage in self.stages:
            stage.set_params(params)

    def step(self, tokens: Tokens, targets: Tokens, scale: float, kinds: str, accumulate: int = 0) -> float:
        """F through all stages, then I and W, or B, back; returns the loss."""
        item = {"tokens": tokens, "targets": targets, "scale": scale, "accumulate": accumulate}
        buffers = [Buffers(stage) for stage in self.stages]
        for index, stage in enumerate(self.stages):
            x = buffers[index - 1].y if index > 0 else None
            stage.run("F", buffers[index], x=x, **item)
        last = len(self.stages) - 1
        for index in range(last, -1, -1):
            dy = buffers[index + 1].dx if index < last else None
            for kind in kinds:
                if kind == "W":
                    buffers[index].a[:] = np.nan  # W must never read it
                self.stages[index].run(kind, buffers[index], dy=dy, **item)
        return float(buffers[-1].loss[0])

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """By name; a tied weight that two stages hold is the sum of both."""
        out: dict[str, NDArray[np.float32]] = {}
        for stage in self.stages:
            for name, value in stage.named(stage.grads).items():
                out[name] = out[name] + value if name in out else value.copy()
        return out

    def close(self) -> None:
        for stage in self.stages:
            stage.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("cuts", [[2], [1, 2, 3], [0, 4]], ids=["two", "four", "ends alone"])
def test_cutting_the_model_changes_no_bit(numerics: ctypes.CDLL, kind: str, cuts: list[int]) -> None:
    """1, 2 and 4 stages, and embedding and head on stages of their own: same loss, same gradients."""
    model = ref.Model(kind, 4, 48, 4, 2 if kind == "llama" else 4, 16, 80, 257, 40)
    params = rounded(model, 3)
    tokens, targets = batch(model, 2, 40)
    results = []
    for where, kinds in (([], "IW"), (cuts, "IW"), (cuts, "B")):
        pipeline = Pipeline(numerics, model, 2, 40, where)
        pipeline.load(params)
        loss = pipeline.step(tokens, targets, 1 / 80, kinds)
        results.append((loss, pipeline.gradients()))
        pipeline.close()

    whole_loss, whole = results[0]
    for loss, gradients in results[1:]:
        assert loss == whole_loss
        assert gradients.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(gradients[name], value, err_msg=name)


def test_a_tied_head_elsewhere_adds_up_to_the_whole(numerics: ctypes.CDLL) -> None:
    """Embedding on stage 0, its copy as head on stage 1: the two gradients sum to the reference's one."""
    model = ref.Model("llama", 2, 48, 4, 2, 12, 80, 257, 40, tied=True)
    params = rounded(model, 3)
    tokens, targets = batch(model, 2, 40)
    _, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 80)

    pipeline = Pipeline(numerics, model, 2, 40, [1])
    pipeline.load(params)
    pipeline.step(tokens, targets, 1 / 80, "IW")

    assert_close_gradients(pipeline.gradients(), grads)
    pipeline.close()


def test_a_tied_head_may_share_the_buffer_of_the_embedding(numerics: ctypes.CDLL) -> None:
    """Both stages on one rank: the head's W writes, the embedding's W adds to the same gradient."""
    model = ref.Model("gpt2", 2, 48, 4, 4, 12, 80, 257, 40, tied=True)
    params = rounded(model, 3)
    tokens, targets = batch(model, 2, 40)
    _, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 80)
    pipeline = Pipeline(numerics, model, 2, 40, [1])
    pipeline.load(params)
    first, last = pipeline.stages
    name = "transformer.wte.weight"
    last.params[:] = np.nan
    without_head, floats = last.layout(ALL_PARTS & ~PARTS["head"])
    last.bind(ALL_PARTS & ~PARTS["head"], last.params, last.grads)
    for param in without_head:
        last.view(last.params, param)[:] = params[param.name.decode()]
    last.bind_head(first.named(first.params)[name], first.named(first.grads)[name])
    assert floats < last.num_floats

    item = {"tokens": tokens, "targets": targets, "scale": 1 / 80}
    buffers = [Buffers(first), Buffers(last)]
    first.run("F", buffers[0], **item)
    last.run("F", buffers[1], x=buffers[0].y, **item)
    last.run("B", buffers[1], **item)
    first.run("B", buffers[0], dy=buffers[1].dx, accumulate=PARTS["wte"], **item)

    got = first.named(first.grads)[name]
    assert np.linalg.norm(got - grads[name]) <= 1e-4 * np.linalg.norm(grads[name])
    pipeline.close()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_microbatches_add_up(numerics: ctypes.CDLL, kind: str, tied: bool) -> None:
    """The first W writes over what is there, later ones add: three microbatches make the step's gradient."""
    model = ref.Model(kind, 2, 32, 4, 2, 8, 48, 257, 24, tied=tied)
    params = rounded(model, 4)
    steps = [batch(model, 1, 24, seed) for seed in range(3)]
    want: ref.Params = {name: np.zeros_like(value) for name, value in params.items()}
    for tokens, targets in steps:
        _, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 72)
        want = {name: want[name] + grads[name] for name in want}

    pipeline = Pipeline(numerics, model, 1, 24, [])
    pipeline.load(params)
    pipeline.stages[0].grads[:] = 123.0
    for index, (tokens, targets) in enumerate(steps):
        pipeline.step(tokens, targets, 1 / 72, "IW", accumulate=ALL_PARTS if index > 0 else 0)

    assert_close_gradients(pipeline.gradients(), want)
    pipeline.close()


def test_gradients_between_stages_equal_the_reference(numerics: ctypes.CDLL) -> None:
    """At a cut, y and dx are the reference's stream and its gradient."""
    for kind in ("gpt2", "llama"):
        model = ref.Model(kind, 2, 48, 4, 2, 16, 80, 257, 70)
        params = rounded(model, 6)
        tokens, targets = batch(model, 1, 70)
        _, streams = ref.forward(model, params, tokens)
        _, _, flows = ref.loss_and_gradients(model, params, tokens, targets, 1 / 70)
        pipeline = Pipeline(numerics, model, 1, 70, [1])
        pipeline.load(params)
        first, last = pipeline.stages
        item = {"tokens": tokens, "targets": targets, "scale": 1 / 70}
        buffers = [Buffers(first), Buffers(last)]
        first.run("F", buffers[0], **item)
        last.run("F", buffers[1], x=buffers[0].y, **item)
        last.run("I", buffers[1], **item)

        for got, want in ((buffers[0].y, streams[1]), (buffers[1].dx, flows[1])):
            error = np.linalg.norm(got[: want.size] - want.ravel())
            assert error <= 1e-5 * np.linalg.norm(want)
        pipeline.close()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logits_equal_the_reference(numerics: ctypes.CDLL, kind: str) -> None:
    """All positions, and one alone, more tokens than one tile of the head."""
    model = ref.Model(kind, 2, 48, 4, 2, 16, 80, 260, 90)
    params = rounded(model, 6)
    tokens, _ = batch(model, 2, 90)
    want = ref.logits(model, params, tokens)
    with Stage(numerics, config_of(model, 2, 90)) as stage:
        stage.set_params(params)
        buffers = Buffers(stage)
        got = stage.logits(buffers, all_positions=True, last_position=0, tokens=tokens)
        one = stage.logits(buffers, all_positions=False, last_position=57, tokens=tokens)

    assert np.abs(got.reshape(want.shape) - want).max() <= 1e-5 * np.abs(want).max()
    np.testing.assert_allclose(one, got.reshape(want.shape)[:, 57], rtol=1e-5, atol=1e-6)


def test_forward_only_gives_the_same_loss(numerics: ctypes.CDLL) -> None:
    """Validation needs no gradient, and no targets but those counted."""
    model = ref.Model("llama", 2, 32, 2, 2, 16, 48, 257, 33)
    tokens, targets = batch(model, 4, 33)
    with Stage(numerics, config_of(model, 4, 33)) as stage:
        stage.set_params(rounded(model, 6))
        buffers = Buffers(stage)
        stage.run("F", buffers, tokens=tokens, targets=targets, scale=1.0)
        loss = float(buffers.loss[0])
        stage.run("F", buffers, tokens=tokens, targets=targets, scale=0.0, forward_only=1)

        assert buffers.loss[0] == loss
        targets[:] = -1
        stage.run("F", buffers, tokens=tokens, targets=targets, scale=1.0)
        assert buffers.loss[0] == 0.0


def test_tokens_outside_the_vocabulary_are_refused(numerics: ctypes.CDLL) -> None:
    """Data may be wrong: a status, no crash."""
    model = ref.Model("llama", 1, 32, 2, 2, 16, 48, 257, 8)
    tokens, targets = batch(model, 1, 8)
    with Stage(numerics, config_of(model, 1, 8)) as stage:
        stage.init(1)
        buffers = Buffers(stage)
        for bad, field in ((257, tokens), (-1, tokens), (257, targets), (-2, targets)):
            kept, field[0, 3] = field[0, 3], bad
            with pytest.raises(NumericsError, match="35: a token or target is not in the vocabulary"):
                stage.run("F", buffers, tokens=tokens, targets=targets, scale=1.0)
            field[0, 3] = kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "head_dim|divisor"),
        ({"kv_heads": 3}, "kv_heads: got 3, expected a divisor of heads 4"),
        ({"head_dim": 15}, "head_dim: got 15, expected an even number"),
        ({"hidden": 0}, "hidden: got 0, expected 1 to"),
        ({"norm_eps": 0.0}, "norm_eps: got 0, expected"),
        ({"rope_theta": float("nan")}, "rope_theta: got nan"),
        ({"positions": 7}, "sequence: got 8 tokens, expected 1 to 7"),
        ({"vocab": 1 << 30}, "vocab: got 1073741824, expected 1 to"),
    ],
)
def test_models_that_make_no_sense_are_refused(
    numerics: ctypes.CDLL, change: dict[str, int | float], message: str
) -> None:
    model = replace(ref.Model("llama", 1, 32, 4, 2, 16, 48, 257, 8), **change)
    with pytest.raises(NumericsError, match=message):
        Stage(numerics, config_of(model, 1, 8))


def test_passes_take_no_memory(numerics: ctypes.CDLL) -> None:
    """The counted allocator stands still while passes run."""
    model = ref.Model("llama", 2, 32, 4, 2, 8, 48, 257, 24)
    tokens, targets = batch(model, 1, 24)
    with Stage(numerics, config_of(model, 1, 24)) as stage:
        stage.init(1)
        buffers = Buffers(stage)
        before = numerics.em_alloc_count()
        for kind in "FIWFB":
            stage.run(kind, buffers, tokens=tokens, targets=targets, scale=1.0)

        assert numerics.em_alloc_count() == before
        assert before > 0


def test_ranks_as_threads_do_not_disturb_each_other(numerics: ctypes.CDLL) -> None:
    """Four threads with a stage each, at the same time: every one gets the bits it gets alone."""
    model = ref.Model("llama", 2, 64, 4, 2, 16, 160, 257, 64)
    tokens, targets = batch(model, 2, 64)

    def gradients(seed: int) -> NDArray[np.float32]:
        with Stage(numerics, config_of(model, 2, 64)) as stage:
            stage.init(seed)
            buffers = Buffers(stage)
            for _ in range(5):
                for kind in "FB":
                    stage.run(kind, buffers, tokens=tokens, targets=targets, scale=1 / 128)
            return stage.grads.copy()

    alone = [gradients(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(gradients, range(4)))

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
