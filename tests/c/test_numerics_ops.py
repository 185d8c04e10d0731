"""Each CPU kernel against float64 NumPy, at sizes that fill vectors and tiles and at sizes that do not."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import reference_numpy as ref
from kernel_table import OPENBLAS, PORTABLE, AdamwStep, Attention, call, kernels
from numpy.typing import NDArray

F32 = NDArray[np.float32]
LENGTHS = [1, 7, 16, 33, 256]


@pytest.fixture(params=[OPENBLAS, PORTABLE], ids=["openblas", "portable"])
def table(numerics: ctypes.CDLL, request: pytest.FixtureRequest) -> Any:
    found = kernels(numerics, request.param)
    if found is None:
        pytest.skip("this build has no OpenBLAS")
    return found


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> F32:
    return np.random.default_rng((seed, *shape)).normal(0.0, spread, shape).astype(np.float32)


def error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """Norm of the difference relative to the norm."""
    return float(np.linalg.norm(got - want) / (np.linalg.norm(want) + 1e-300))


@pytest.mark.parametrize("trans", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("size", [(1, 1, 1), (6, 16, 8), (65, 63, 257), (7, 130, 300), (128, 5, 64)])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
def test_gemm(table: Any, trans: tuple[bool, bool], size: tuple[int, int, int], beta: float) -> None:
    """C = alpha op(A) op(B) + beta C with row strides wider than the rows; beta 0 never reads C."""
    m, n, k = size
    a = random(*((k, m + 3) if trans[0] else (m, k + 3)), seed=1)
    b = random(*((n, k + 5) if trans[1] else (k, n + 5)), seed=2)
    c = random(m, n + 2, seed=3)
    if beta == 0.0:
        c[:, :n] = np.nan
    op_a = (a[:, :m].T if trans[0] else a[:, :k]).astype(np.float64)
    op_b = (b[:, :k].T if trans[1] else b[:, :n]).astype(np.float64)
    want = c.astype(np.float64)
    want[:, :n] = 0.7 * op_a @ op_b + (beta * want[:, :n] if beta else 0.0)

    call(table, "gemm", *trans, m, n, k, 0.7, a, a.shape[1], b, b.shape[1], beta, c, c.shape[1])

    assert error(c, want) < 1e-6
    np.testing.assert_array_equal(c[:, n:], want[:, n:].astype(np.float32))


@pytest.mark.parametrize("cols", LENGTHS)
@pytest.mark.parametrize("rms", [False, True])
def test_norms(table: Any, cols: int, rms: bool) -> None:
    """Forward, the output again from its stash, and backward with a residual on top."""
    rows, eps = 5, 1e-3
    x, gain, dn, base = (
        random(rows, cols, spread=3.0) + 1,
        random(cols, seed=1),
        random(rows, cols, seed=2),
        random(rows, cols, seed=3),
    )
    bias = None if rms else random(cols, seed=4)
    xhat, n, again, dx = (np.empty_like(x) for _ in range(4))
    rstd, dgain, dbias = (
        np.empty(rows, np.float32),
        np.full(cols, 9.0, np.float32),
        np.full(cols, 9.0, np.float32),
    )
    wide = [v.astype(np.float64) for v in (x, gain, dn)]
    wide_bias = None if bias is None else bias.astype(np.float64)
    want, saved = ref._norm(wide[0], wide[1], wide_bias, eps)
    want_dx, want_dgain, want_dbias = ref._norm_back(wide[2], wide[1], not rms, saved)

    call(table, "norm_forward", rows, cols, rms, eps, gain, bias, x, xhat, n, rstd)
    call(table, "norm_scale", rows, cols, gain, bias, xhat, again)
    for _ in range(2):
        call(
            table,
            "norm_backward",
            2,
            cols,
            rms,
            gain,
            xhat,
            rstd,
            dn,
            base,
            dx,
            True,
            dgain,
            None if rms else dbias,
        )
        call(
            table,
            "norm_backward",
            rows - 2,
            cols,
            rms,
            gain,
            xhat[2:],
            rstd[2:],
            dn[2:],
            base[2:],
            dx[2:],
            False,
            dgain,
            None if rms else dbias,
        )

    scale = np.linalg.norm(want) + 1
    assert np.linalg.norm(n - want) < 1e-5 * scale
    np.testing.assert_allclose(again, n, rtol=1e-6, atol=1e-6)
    assert np.linalg.norm(dx - base - want_dx) < 2e-5 * (np.linalg.norm(want_dx) + np.linalg.norm(base))
    assert np.linalg.norm(dgain - want_dgain) < 1e-5 * (np.linalg.norm(want_dgain) + 1)
    if not rms:
        assert error(dbias, want_dbias) < 1e-6


@pytest.mark.parametrize("num", LENGTHS)
def test_gelu(table: Any, num: int) -> None:
    """Values and slopes, far tails included."""
    u = np.concatenate([random(num, spread=4.0), np.array([-60.0, -9.0, 0.0, 9.0, 60.0], np.float32)])
    dact, act, du = random(u.size, seed=1), np.empty_like(u), np.empty_like(u)
    wide = u.astype(np.float64)

    call(table, "gelu_forward", u.size, u, act)
    call(table, "gelu_backward", u.size, u, dact, du)

    np.testing.assert_allclose(act, ref._gelu(wide), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(du, dact * ref._gelu_slope(wide), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("ffn", LENGTHS)
def test_swiglu(table: Any, ffn: int) -> None:
    """Gate and up side by side in each row."""
    u, dact = random(3, 2 * ffn, spread=3.0), random(3, ffn, seed=1)
    act, du = np.empty_like(dact), np.empty_like(u)
    gate, up = np.split(u.astype(np.float64), 2, axis=1)
    s = 1.0 / (1.0 + np.exp(-gate))
    want = np.concatenate([dact * up * s * (1 + gate * (1 - s)), dact * gate * s], axis=1)

    call(table, "swiglu_forward", 3, ffn, u, act)
    call(table, "swiglu_backward", 3, ffn, u, dact, du)

    assert error(act, gate * s * up) < 1e-6
    assert error(du, want) < 1e-6


def test_rotary_turns_and_turns_back(table: Any) -> None:
    """Half-split rotation by the position's angle; the inverse undoes it; other columns are untouched."""
    model = ref.Model("llama", 1, 8, 3, 1, 20, 8, 8, 7)
    rows, seq, width = 14, 7, 3 * 20 + 5
    x = random(rows, width)
    start = x.copy()
    cosine, sine = ref._rotation(model, seq)
    angles = np.concatenate([cosine[:, :10], sine[:, :10]], axis=1).astype(np.float32)
    heads = start[:, :60].reshape(2, 7, 3, 20).swapaxes(1, 2).astype(np.float64)
    want = (heads * cosine + ref._half_turn(heads) * sine).swapaxes(1, 2).reshape(rows, 60)

    call(table, "rotary", rows, seq, 3, 20, width, angles, False, x)
    assert error(x[:, :60], want) < 1e-6
    np.testing.assert_array_equal(x[:, 60:], start[:, 60:])

    call(table, "rotary", rows, seq, 3, 20, width, angles, True, x)
    assert error(x, start) < 1e-6


@pytest.mark.parametrize(
    "shape", [(2, 1, 2, 2, 16), (1, 64, 2, 1, 16), (2, 65, 4, 2, 24), (1, 257, 4, 1, 128), (1, 600, 1, 1, 17)]
)
def test_attention(table: Any, numerics: ctypes.CDLL, shape: tuple[int, int, int, int, int]) -> None:
    """Forward and backward over one and several tiles, groups of 1, 2 and 4, large scores."""
    batch, seq, heads, groups, d = shape
    width = (heads + 2 * groups) * d
    at = Attention(batch, seq, 0, seq, heads, groups, d, width, width, width, width)
    qkv, d_o = random(batch * seq, width, spread=2.0), random(batch * seq, heads * d, seed=1)
    o, lse, dqkv = np.empty_like(d_o), np.empty((heads, batch * seq), np.float32), np.full_like(qkv, np.nan)
    floats = []
    for name in ("em_attention_forward_floats", "em_attention_backward_floats"):
        getattr(numerics, name).restype = ctypes.c_uint64
        floats.append(getattr(numerics, name)(ctypes.byref(at)))
    work = np.full(max(floats), np.nan, np.float32)
    wide = qkv.reshape(batch, seq, -1).astype(np.float64)
    q, k, v = np.split(wide, [heads * d, (heads + groups) * d], axis=-1)
    q, k, v = ref._split(q, heads), ref._split(k, groups), ref._split(v, groups)
    repeat = heads // groups
    want, weights = ref._attention(q, k.repeat(repeat, 1), v.repeat(repeat, 1))
    grad = ref._split(d_o.reshape(batch, seq, -1).astype(np.float64), heads)
    inner = grad @ v.repeat(repeat, 1).swapaxes(-1, -2)
    scores = weights * (inner - (inner * weights).sum(-1, keepdims=True)) / np.sqrt(d)
    split = (batch, groups, repeat, seq, d)
    dk = (scores.swapaxes(-1, -2) @ q).reshape(split).sum(2)
    dv = (weights.swapaxes(-1, -2) @ grad).reshape(split).sum(2)
    want_dqkv = np.concatenate([ref._join(x) for x in (scores @ k.repeat(repeat, 1), dk, dv)], axis=-1)

    kv, dkv = qkv.ravel()[heads * d :], dqkv.ravel()[heads * d :]
    call(table, "attention_forward", ctypes.byref(at), qkv, kv, o, lse, work)
    call(table, "attention_backward", ctypes.byref(at), qkv, kv, o, lse, d_o, dqkv, dkv, True, work)

    assert error(o.reshape(batch, seq, -1), ref._join(want)) < 2e-6
    assert error(dqkv.reshape(batch, seq, -1), want_dqkv) < 1e-5


@pytest.mark.parametrize(
    ("shape", "slices"),
    [((2, 8, 4, 2, 16), 8), ((3, 96, 2, 1, 17), 2), ((1, 532, 3, 1, 10), 4), ((2, 512, 2, 2, 24), 2)],
)
def test_attention_of_slices(table: Any, shape: tuple[int, int, int, int, int], slices: int) -> None:
    """Queries of a slice, keys of all slices so far; gradients of keys gather from the last slice down."""
    batch, seq, heads, groups, d = shape
    rows, repeat = seq // slices, heads // groups
    q, d_o = (random(batch, seq, heads * d, seed=seed, spread=2.0) for seed in (0, 1))
    kv = random(batch, seq, 2 * groups * d, seed=2)
    queries, grad = (ref._split(x.astype(np.float64), heads) for x in (q, d_o))
    keys, values = (ref._split(x.astype(np.float64), groups) for x in np.split(kv, 2, axis=-1))
    want, weights = ref._attention(queries, keys.repeat(repeat, 1), values.repeat(repeat, 1))
    inner = grad @ values.repeat(repeat, 1).swapaxes(-1, -2)
    scores = weights * (inner - (inner * weights).sum(-1, keepdims=True)) / np.sqrt(d)
    split = (batch, groups, repeat, seq, d)
    want_dq = ref._join(scores @ keys.repeat(repeat, 1))
    dk = (scores.swapaxes(-1, -2) @ queries).reshape(split).sum(2)
    dv = (weights.swapaxes(-1, -2) @ grad).reshape(split).sum(2)
    o, dq = np.full_like(q, np.nan), np.full_like(q, np.nan)
    dkv = np.full_like(kv, np.nan)
    work = np.full(2 * 64 * 256 + 64, np.nan, np.float32)
    stash = []

    def part(x: F32, cut: int) -> F32:
        return np.ascontiguousarray(x[:, cut * rows : (cut + 1) * rows])

    def place(cut: int) -> Attention:
        return Attention(
            batch,
            seq,
            cut * rows,
            rows,
            heads,
            groups,
            d,
            heads * d,
            2 * groups * d,
            heads * d,
            2 * groups * d,
        )

    for cut in range(slices):
        seen = kv.copy()
        seen[:, (cut + 1) * rows :] = np.nan  # nothing after the slice is read
        out, lse = np.empty((batch, rows, heads * d), np.float32), np.empty((heads, batch, rows), np.float32)
        call(table, "attention_forward", ctypes.byref(place(cut)), part(q, cut), seen, out, lse, work)
        o[:, cut * rows : (cut + 1) * rows] = out
        stash.append((out, lse))
    for cut in reversed(range(slices)):
        out, lse = stash[cut]
        got = np.full_like(out, np.nan)
        last = cut == slices - 1
        later = dkv[:, (cut + 1) * rows :].copy()
        call(
            table,
            "attention_backward",
            ctypes.byref(place(cut)),
            part(q, cut),
            kv,
            out,
            lse,
            part(d_o, cut),
            got,
            dkv,
            last,
            work,
        )
        np.testing.assert_array_equal(dkv[:, (cut + 1) * rows :], later)
        dq[:, cut * rows : (cut + 1) * rows] = got

    assert error(o, ref._join(want)) < 2e-6
    assert error(dq, want_dq) < 1e-5
    assert error(dkv, np.concatenate([ref._join(dk), ref._join(dv)], axis=-1)) < 1e-5


@pytest.mark.parametrize("vocab", [2, 16, 257, 260, 5000])
def test_cross_entropy(table: Any, vocab: int) -> None:
    """Loss and gradient per row, spread-out logits, an ignored row; each gradient row sums to zero."""
    rows, scale = 6, 0.25
    logits = random(rows, vocab, spread=8.0)
    targets = np.random.default_rng(1).integers(0, vocab, rows).astype(np.int32)
    targets[3] = -1
    lse = np.empty(rows, np.float32)
    wide = logits.astype(np.float64)
    want_lse = np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1)
    counted = targets >= 0
    want_loss = (want_lse - wide[np.arange(rows), targets])[counted].sum()
    want = np.exp(wide - want_lse[:, None])
    want[np.arange(rows), targets] -= 1.0
    want = want * scale * counted[:, None]

    loss = call(table, "cross_entropy_forward", rows, vocab, logits, targets, lse)
    call(table, "cross_entropy_backward", rows, vocab, targets, lse, scale, logits)

    assert loss == pytest.approx(want_loss, rel=1e-6)
    np.testing.assert_allclose(logits, want, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(logits.sum(1), 0.0, atol=1e-6)


def test_embedding(table: Any) -> None:
    """Gather with positions; scatter adds repeated tokens."""
    tokens = np.array([3, 1, 3, 3, 0, 1], np.int32)
    wte, wpe, dx = random(5, 19), random(3, 19, seed=1), random(6, 19, seed=2)
    x, dwte, dwpe = np.empty_like(dx), np.zeros_like(wte), np.zeros_like(wpe)
    want_dwte, want_dwpe = np.zeros((5, 19)), np.zeros((3, 19))
    np.add.at(want_dwte, tokens, dx)
    np.add.at(want_dwpe, np.arange(6) % 3, dx)

    call(table, "embed_forward", 6, 19, 3, tokens, wte, wpe, x)
    call(table, "embed_backward", 6, 19, 3, tokens, dx, dwte, dwpe)

    np.testing.assert_array_equal(x, wte[tokens] + wpe[np.arange(6) % 3])
    assert error(dwte, want_dwte) < 1e-6
    assert error(dwpe, want_dwpe) < 1e-6


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_sums_and_additions(table: Any, rows: int) -> None:
    """Column sums write or add; a bias lands on every row, in place or not."""
    x, y, bias = random(rows, 37), random(37, seed=1), random(37, seed=2)
    start = y.astype(np.float64)
    call(table, "column_sum", rows, 33, x, 37, False, y)
    assert error(y[:33], start[:33] + x[:, :33].sum(0)) < 1e-6
    call(table, "column_sum", rows, 33, x, 37, True, y)
    assert error(y[:33], x[:, :33].astype(np.float64).sum(0)) < 1e-6
    np.testing.assert_array_equal(y[33:], start[33:].astype(np.float32))

    out = np.empty_like(x)
    call(table, "add_row", rows, 37, x, bias, out)
    np.testing.assert_array_equal(out, x + bias)
    call(table, "add_row", rows, 37, None, bias, out)
    np.testing.assert_array_equal(out, np.broadcast_to(bias, x.shape))
    call(table, "add_row", rows, 37, x, None, out)
    np.testing.assert_array_equal(out, x)
    call(table, "add_row", rows, 37, out, bias, out)
    call(table, "add", x.size, x, out)
    np.testing.assert_array_equal(out, (x + bias) + x)


@pytest.mark.parametrize("num", LENGTHS)
def test_adamw_and_sum_of_squares(table: Any, num: int) -> None:
    """One update equals the formula; squares are summed in double."""
    grad, param, m, v = random(num), random(num, seed=1), random(num, seed=2), random(num, seed=3) ** 2
    g, p, first, second = (x.astype(np.float64) for x in (grad, param, m, v))
    step = AdamwStep(1e-2, 0.9, 0.95, 0.1, 0.05, 1e-8, 1e-3, 1 / (1 - 0.9**3), 1 / (1 - 0.95**3), 0.5)
    want_m, want_v = 0.9 * first + 0.1 * g * 0.5, 0.95 * second + 0.05 * (g * 0.5) ** 2
    update = want_m / (1 - 0.9**3) / (np.sqrt(want_v / (1 - 0.95**3)) + 1e-8)

    call(table, "adamw", num, ctypes.byref(step), grad, param, m, v)

    np.testing.assert_allclose(m, want_m, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(v, want_v, rtol=1e-6)
    np.testing.assert_allclose(param, p - 1e-3 * p - 1e-2 * update, rtol=1e-6, atol=1e-7)
    assert call(table, "sum_squares", num, grad) == pytest.approx((g**2).sum(), rel=1e-14)
