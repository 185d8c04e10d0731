"""Token slices: a sequence in several runs of tokens gives the losses and gradients of the whole one."""

from __future__ import annotations

import ctypes
from typing import Self

import numpy as np
import pytest
import reference_numpy as ref
from numerics_case import Tokens, assert_close_gradients, batch, rounded
from numerics_library import ALL_PARTS, Buffers, NumericsError, Stage, config_of
from numpy.typing import NDArray

# Sequences shorter than a tile of queries (64), slices that end within one, longer than a tile of keys (256)
# where one begins amid a tile of queries, whose first rows see none of it.
MODELS = {
    "gpt2": (ref.Model("gpt2", 4, 48, 4, 4, 12, 80, 257, 48), 48),
    "gpt2 grouped tied": (ref.Model("gpt2", 2, 40, 4, 2, 10, 70, 260, 280, tied=True), 276),
    "llama": (ref.Model("llama", 4, 48, 4, 2, 12, 80, 257, 128), 128),
    "llama one key head": (ref.Model("llama", 2, 30, 3, 1, 10, 50, 257, 600, tied=True), 532),
}


class SlicedPipeline:
    """A model cut into stages and its sequences into slices, run as a plan would: F up, then back."""

    def __init__(
        self,
        lib: ctypes.CDLL,
        model: ref.Model,
        microbatch: int,
        seq: int,
        slices: int,
        cuts: tuple[int, ...] = (),
        gemm: int = 0,
    ) -> None:
        bounds = [0, *cuts, model.layers]
        last = len(cuts)
        self.slices = slices
        self.stages = [
            Stage(
                lib,
                config_of(
                    model,
                    microbatch,
                    seq,
                    first=bounds[i],
                    num=bounds[i + 1] - bounds[i],
                    embedding=i == 0,
                    head=i == last,
                    gemm=gemm,
                    slices=slices,
                ),
            )
            for i in range(last + 1)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stage in self.stages:
            stage.__exit__(None, None, None)

    def load(self, params: ref.Params) -> None:
        for stage in self.stages:
            stage.set_params(params)

    def buffers(self) -> list[list[Buffers]]:
        """Of one microbatch, by stage and slice; a stage's slices share the k slot."""
        made = [[Buffers(stage) for _ in range(self.slices)] for stage in self.stages]
        for row in made:
            for item in row:
                item.k = row[0].k
        return made

    def forward(self, items: list[list[Buffers]], cut: int, **fields: object) -> None:
        for index, stage in enumerate(self.stages):
            x = items[index - 1][cut].y if index > 0 else None
            stage.run("F", items[index][cut], slice=cut, x=x, **fields)

    def backward(self, items: list[list[Buffers]], cut: int, kinds: str, **fields: object) -> None:
        for index in range(len(self.stages) - 1, -1, -1):
            dy = items[index + 1][cut].dx if index + 1 < len(self.stages) else None
            for kind in kinds:
                self.stages[index].run(kind, items[index][cut], slice=cut, dy=dy, **fields)

    def step(
        self, tokens: Tokens, targets: Tokens, kinds: str, *, scale: float = 0.0, accumulate: int = 0
    ) -> float:
        """One microbatch; returns its loss. `accumulate` is that of the first backward slice."""
        items = self.buffers()
        item = {"tokens": tokens, "targets": targets, "scale": scale or 1.0 / tokens.size}
        for cut in range(self.slices):
            self.forward(items, cut, **item)
        for cut in reversed(range(self.slices)):
            mask = accumulate if cut == self.slices - 1 else ALL_PARTS
            self.backward(items, cut, kinds, accumulate=mask, **item)
        return float(sum(b.loss[0] for b in items[-1]))

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """By name; a tied weight that two stages hold is the sum of both."""
        out: dict[str, NDArray[np.float32]] = {}
        for stage in self.stages:
            for name, value in stage.named(stage.grads).items():
                out[name] = out[name] + value if name in out else value.copy()
        return out


@pytest.mark.parametrize("gemm", [0, 2], ids=["best", "portable"])
@pytest.mark.parametrize("microbatch", [1, 3])
@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_slices_equal_the_whole_sequence(
    numerics: ctypes.CDLL, case: tuple[ref.Model, int], slices: int, microbatch: int, gemm: int
) -> None:
    """The reference knows no slices: loss within 1e-5, each gradient within 1e-4 of its norm."""
    model, seq = case
    params = rounded(model, 1)
    tokens, targets = batch(model, microbatch, seq)
    loss, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1.0 / tokens.size)

    with SlicedPipeline(numerics, model, microbatch, seq, slices, gemm=gemm) as pipeline:
        pipeline.load(params)
        got = pipeline.step(tokens, targets, "IW")

        assert got == pytest.approx(loss, rel=1e-5)
        assert_close_gradients(pipeline.gradients(), grads)


@pytest.mark.parametrize("cuts", [(2,), (1, 2, 3), (0, 4)], ids=["two", "four", "ends alone"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_slices_of_a_cut_model_equal_the_reference(
    numerics: ctypes.CDLL, kind: str, cuts: tuple[int, ...]
) -> None:
    """Slices travel through the stages one by one; cutting the model still changes no bit, nor does B."""
    model, seq = MODELS[kind]
    params = rounded(model, 3)
    tokens, targets = batch(model, 3, seq)
    loss, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1.0 / tokens.size)
    results = []
    for where, kinds in (((), "IW"), (cuts, "IW"), (cuts, "B")):
        with SlicedPipeline(numerics, model, 3, seq, 4, where) as pipeline:
            pipeline.load(params)
            results.append((pipeline.step(tokens, targets, kinds), pipeline.gradients()))

    assert results[1][0] == pytest.approx(loss, rel=1e-5)
    assert_close_gradients(results[1][1], grads)
    for got_loss, got in results[1:]:
        assert got_loss == results[0][0]
        for name, value in results[0][1].items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_every_token_is_a_slice(numerics: ctypes.CDLL, kind: str) -> None:
    """As many slices as tokens: the finest cut there is."""
    model = ref.Model(kind, 2, 32, 4, 2, 8, 48, 257, 12)
    params = rounded(model, 4)
    tokens, targets = batch(model, 2, 12)
    loss, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / 24)

    with SlicedPipeline(numerics, model, 2, 12, 12, (1,)) as pipeline:
        pipeline.load(params)

        assert pipeline.step(tokens, targets, "B") == pytest.approx(loss, rel=1e-5)
        assert_close_gradients(pipeline.gradients(), grads)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_streams_of_a_slice_are_the_references(numerics: ctypes.CDLL, kind: str) -> None:
    """At a cut, a slice's y and dx are its rows of each sequence's stream and of its gradient."""
    model, seq = MODELS[kind]
    params = rounded(model, 6)
    tokens, targets = batch(model, 3, seq)
    _, streams = ref.forward(model, params, tokens)
    _, _, flows = ref.loss_and_gradients(model, params, tokens, targets, 1.0 / tokens.size)
    item = {"tokens": tokens, "targets": targets, "scale": 1.0 / tokens.size}

    with SlicedPipeline(numerics, model, 3, seq, 2, (2,)) as pipeline:
        pipeline.load(params)
        items = pipeline.buffers()
        for cut in (0, 1):
            pipeline.forward(items, cut, **item)
        for cut in (1, 0):
            pipeline.backward(items, cut, "I", **item)

        for cut in (0, 1):
            rows = slice(cut * seq // 2, (cut + 1) * seq // 2)
            for got, whole in ((items[0][cut].y, streams[2]), (items[1][cut].dx, flows[2])):
                want = whole[:, rows]
                assert np.linalg.norm(got[: want.size] - want.ravel()) <= 1e-5 * np.linalg.norm(want)


def test_interleaved_microbatches_keep_their_slots_apart(numerics: ctypes.CDLL) -> None:
    """Slices of three microbatches take turns, each with its k slot; W comes late, when k is long gone."""
    model, seq = MODELS["llama"]
    params = rounded(model, 4)
    data = [batch(model, 1, seq, seed) for seed in range(3)]
    want: ref.Params = {name: np.zeros_like(value) for name, value in params.items()}
    for tokens, targets in data:
        _, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, 1 / (3 * seq))
        want = {name: want[name] + grads[name] for name in want}

    with SlicedPipeline(numerics, model, 1, seq, 2, (2,)) as pipeline:
        pipeline.load(params)
        items = [pipeline.buffers() for _ in data]
        fields = [{"tokens": tokens, "targets": targets, "scale": 1 / (3 * seq)} for tokens, targets in data]
        for cut in (0, 1):
            for number in (0, 1, 2):
                pipeline.forward(items[number], cut, **fields[number])
        for cut in (1, 0):
            for number in (2, 0, 1):
                pipeline.backward(items[number], cut, "I", **fields[number])
        for number in (0, 1, 2):
            for row in items[number]:
                for item in row:
                    item.a[:] = np.nan
                    item.k[:] = np.nan
            for cut in (0, 1):
                mask = 0 if (number, cut) == (0, 0) else ALL_PARTS
                pipeline.backward(items[number], cut, "W", accumulate=mask, **fields[number])

        assert_close_gradients(pipeline.gradients(), want)


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_recomputation_makes_the_same_stash(numerics: ctypes.CDLL, kind: str, slices: int) -> None:
    """F without a stash, then F again just before B: same loss, same k slot, same gradients, bit by bit."""
    model, seq = MODELS[kind]
    tokens, targets = batch(model, 3, seq)
    item = {"tokens": tokens, "targets": targets, "scale": 1.0 / tokens.size}

    with SlicedPipeline(numerics, model, 3, seq, slices) as pipeline:
        (stage,) = pipeline.stages
        stage.set_params(rounded(model, 2))
        kept = pipeline.step(tokens, targets, "B")
        want = stage.grads.copy()
        (items,) = pipeline.buffers()
        scratch = Buffers(stage)
        scratch.k = items[0].k
        losses = []
        for cut in range(slices):
            stage.run("F", scratch, slice=cut, forward_only=1, **item)
            losses.append(float(scratch.loss[0]))
            scratch.a[:] = scratch.w[:] = np.nan
        for cut in reversed(range(slices)):
            half = items[0].k.reshape(model.layers, 2, -1)[:, 0].copy() if slices > 1 else None
            stage.run("F", items[cut], slice=cut, **item)
            if half is not None:
                np.testing.assert_array_equal(items[0].k.reshape(model.layers, 2, -1)[:, 0], half)
            assert items[cut].loss[0] == losses[cut]
            mask = 0 if cut == slices - 1 else ALL_PARTS
            stage.run("B", items[cut], slice=cut, accumulate=mask, **item)

        assert sum(losses) == kept
        np.testing.assert_array_equal(stage.grads, want)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_slot_used_before_needs_no_cleaning(numerics: ctypes.CDLL, kind: str) -> None:
    """The first backward slice writes: the same k slot for the next microbatch gives the same bits."""
    model, seq = MODELS[kind]
    tokens, targets = batch(model, 1, seq)
    item = {"tokens": tokens, "targets": targets, "scale": 1.0 / tokens.size}
    with SlicedPipeline(numerics, model, 1, seq, 4, (1,)) as pipeline:
        pipeline.load(rounded(model, 2))
        items = pipeline.buffers()
        results = []
        for fill in (np.nan, 1e3):
            for row in items:
                row[0].k[:] = fill
            for cut in range(4):
                pipeline.forward(items, cut, **item)
            for cut in (3, 2, 1, 0):
                pipeline.backward(items, cut, "IW", accumulate=0 if cut == 3 else ALL_PARTS, **item)
            results.append([stage.grads.copy() for stage in pipeline.stages])

    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_slice_is_the_whole_microbatch(numerics: ctypes.CDLL) -> None:
    """0 slices (a field left out) and 1 are the same layout and the same bits, without a k slot."""
    model, seq = MODELS["llama"]
    tokens, targets = batch(model, 3, seq)
    seen = []
    for slices in (0, 1):
        with Stage(numerics, config_of(model, 3, seq, slices=slices)) as stage:
            assert stage.sizes.k_bytes == 0
            stage.set_params(rounded(model, 2))
            buffers = Buffers(stage)
            for kind in "FIW":
                stage.run(kind, buffers, tokens=tokens, targets=targets, scale=1.0)
            seen.append((buffers.a.copy(), buffers.w.copy(), buffers.g.copy(), stage.grads.copy()))

    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)


def test_slices_see_tokens_of_their_own_alone(numerics: ctypes.CDLL) -> None:
    """A token out of the vocabulary stops the slice that holds it, in whichever sequence, and no other."""
    model, seq = MODELS["gpt2"]
    with Stage(numerics, config_of(model, 3, seq, slices=4)) as stage:
        stage.set_params(rounded(model, 2))
        buffers = Buffers(stage)
        for row, column, field in ((0, 0, 0), (1, seq - 1, 0), (2, seq // 2, 1)):
            data = batch(model, 3, seq)
            data[field][row, column] = model.vocab
            for cut in range(4):
                item = {"tokens": data[0], "targets": data[1], "scale": 1.0, "slice": cut}
                if cut == column * 4 // seq:
                    with pytest.raises(NumericsError, match="a token or target is not in the vocabulary"):
                        stage.run("F", buffers, **item)
                else:
                    stage.run("F", buffers, **item)


def test_slices_that_make_no_sense_are_refused(numerics: ctypes.CDLL) -> None:
    """Slices divide the sequence; an item names one of them and its k slot; logits are of whole sequences."""
    model, seq = MODELS["gpt2"]
    tokens, targets = batch(model, 1, seq)
    for slices in (5, 2 * seq):
        with pytest.raises(NumericsError, match=f"slices: got {slices}, expected a divisor of seq {seq}"):
            Stage(numerics, config_of(model, 1, seq, slices=slices))
    with Stage(numerics, config_of(model, 1, seq, slices=2)) as stage:
        stage.init(1)
        buffers = Buffers(stage)
        item = {"tokens": tokens, "targets": targets, "scale": 1.0}
        with pytest.raises(NumericsError, match="slice: got 2, expected less than 2"):
            stage.run("F", buffers, slice=2, **item)
        with pytest.raises(NumericsError, match="k: got none, expected"):
            stage.run("B", buffers, slice=1, k=None, **item)
        with pytest.raises(NumericsError, match="several slices"):
            stage.logits(buffers, all_positions=True, last_position=0, **item)


def test_sliced_passes_take_no_memory(numerics: ctypes.CDLL) -> None:
    """The counted allocator stands still while slices run."""
    model, seq = MODELS["llama"]
    tokens, targets = batch(model, 1, seq)
    with SlicedPipeline(numerics, model, 1, seq, 4) as pipeline:
        pipeline.load(rounded(model, 2))
        before = numerics.em_alloc_count()
        pipeline.step(tokens, targets, "IW")

        assert numerics.em_alloc_count() == before > 0
