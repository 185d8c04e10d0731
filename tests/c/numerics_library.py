"""The C engine's numerics through ctypes: `exactmap/numerics.h` as Python calls on NumPy arrays."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char, c_double, c_float, c_int, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import reference_numpy as ref
from numpy.typing import NDArray

__all__ = ["PASSES", "Buffers", "Config", "NumericsError", "Param", "Stage", "aligned", "load"]

PASSES = {"F": 0, "I": 1, "W": 2, "B": 3}
PARTS = {"wte": 1, "wpe": 2, "layers": 4, "norm": 8, "head": 16}
ALL_PARTS = 31

F32 = NDArray[np.float32]


class NumericsError(Exception):
    """What an em_error_t says."""


class Config(ctypes.Structure):
    _fields_ = [
        (name, c_uint32)
        for name in (
            "kind",
            "layers",
            "hidden",
            "heads",
            "kv_heads",
            "head_dim",
            "ffn",
            "vocab",
            "positions",
            "tied",
            "first_layer",
            "num_layers",
            "has_embedding",
            "has_head",
            "microbatch",
            "seq",
            "gemm",
        )
    ] + [("norm_eps", c_float), ("rope_theta", c_float), ("slices", c_uint32)]


class _Sizes(ctypes.Structure):
    _fields_ = [
        ("h_bytes", c_uint64),
        ("a_bytes", c_uint64),
        ("w_bytes", c_uint64),
        ("g_bytes", c_uint64),
        ("workspace_bytes", c_uint64 * 4),
        ("workspace_max_bytes", c_uint64),
        ("k_bytes", c_uint64),
        ("stashless_bytes", c_uint64),
        ("recompute_bytes", c_uint64),
    ]


class Param(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 80),
        ("shape", c_uint64 * 2),
        ("offset", c_uint64),
        ("ndim", c_uint32),
        ("part", c_uint32),
        ("decay", c_uint32),
        ("init_std", c_float),
    ]


class _Item(ctypes.Structure):
    _fields_ = [
        (n, c_void_p) for n in ("tokens", "targets", "x", "y", "dy", "dx", "a", "w", "g", "loss_sum")
    ] + [
        ("scale", c_float),
        ("accumulate", c_uint32),
        ("forward_only", c_uint32),
        ("slice", c_uint32),
        ("k", c_void_p),
    ]


class _Error(ctypes.Structure):
    _fields_ = [
        ("status", c_int),
        ("line", c_int),
        ("file", c_void_p),
        ("text", c_char * 512),
        ("hint", c_char * 256),
    ]


def load(path: Path) -> ctypes.CDLL:
    """Open the library and state the types of its functions."""
    lib = ctypes.CDLL(str(path))
    handle, error, table = c_void_p, POINTER(_Error), POINTER(Param)
    lib.em_numerics_open.argtypes = [POINTER(Config), POINTER(handle), error]
    lib.em_numerics_close.argtypes = [handle]
    lib.em_numerics_close.restype = None
    lib.em_numerics_kernels_name.argtypes = [handle]
    lib.em_numerics_kernels_name.restype = ctypes.c_char_p
    lib.em_numerics_sizes.argtypes = [handle, POINTER(_Sizes)]
    lib.em_numerics_sizes.restype = None
    counts = [POINTER(c_uint32), POINTER(c_uint64), error]
    lib.em_numerics_layout.argtypes = [handle, c_uint32, table, c_uint32, *counts]
    lib.em_numerics_bind.argtypes = [handle, c_uint32, c_void_p, c_void_p, error]
    lib.em_numerics_bind_head.argtypes = [handle, c_void_p, c_void_p]
    lib.em_numerics_bind_head.restype = None
    lib.em_numerics_init.argtypes = [handle, c_uint32, c_uint64, c_void_p, error]
    lib.em_numerics_pass.argtypes = [handle, c_uint32, POINTER(_Item), error]
    lib.em_numerics_logits.argtypes = [handle, POINTER(_Item), c_uint32, c_uint32, c_void_p, error]
    shard = [handle, c_uint32, c_uint64, c_uint64]
    pointers = [c_void_p] * 4
    lib.em_numerics_adamw.argtypes = [*shard, c_double * 6, c_uint64, *pointers, error]
    lib.em_numerics_sum_squares.argtypes = [*shard, c_void_p, POINTER(c_double), error]
    lib.em_alloc_count.restype = c_uint64
    return lib


def aligned(num_floats: int, fill: float = 0.0) -> F32:
    """A 64-byte aligned float32 array."""
    raw = np.empty(num_floats + 16, dtype=np.float32)
    start = (-raw.ctypes.data % 64) // 4
    out = raw[start : start + num_floats]
    out[:] = fill
    return out


def _pointer(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


class Buffers:
    """The buffers of one microbatch of a stage, filled with a value that shows up if it is read unwritten."""

    def __init__(self, stage: Stage, poison: float = np.nan) -> None:
        sizes = stage.sizes
        self.y = aligned(sizes.h_bytes // 4, poison)
        self.dx = aligned(sizes.h_bytes // 4, poison)
        self.a = aligned(sizes.a_bytes // 4, poison)
        self.w = aligned(sizes.w_bytes // 4, poison)
        self.g = aligned(sizes.g_bytes // 4, poison)
        self.k = aligned(sizes.k_bytes // 4, poison)
        self.loss = np.full(1, np.nan)


class Stage:
    """One stage with its parameters and gradients in one bucket."""

    def __init__(self, lib: ctypes.CDLL, config: Config) -> None:
        self.lib, self.config, self.handle = lib, config, c_void_p()
        self._check(lambda e: lib.em_numerics_open(byref(config), byref(self.handle), e))
        self.sizes = _Sizes()
        lib.em_numerics_sizes(self.handle, byref(self.sizes))
        self.table, self.num_floats = self.layout(ALL_PARTS)
        self.params, self.grads = aligned(self.num_floats), aligned(self.num_floats)
        self.bind(ALL_PARTS, self.params, self.grads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lib.em_numerics_close(self.handle)

    @staticmethod
    def _check(call: Any) -> None:
        error = _Error()
        status = call(byref(error))
        if status != 0:
            raise NumericsError(f"{status}: {error.text.decode()}")

    @property
    def kernels(self) -> str:
        return str(self.lib.em_numerics_kernels_name(self.handle).decode())

    def layout(self, parts: int) -> tuple[list[Param], int]:
        num, floats = c_uint32(), c_uint64()
        self._check(
            lambda e: self.lib.em_numerics_layout(self.handle, parts, None, 0, byref(num), byref(floats), e)
        )
        table = (Param * num.value)()
        self._check(
            lambda e: self.lib.em_numerics_layout(
                self.handle, parts, table, num, byref(num), byref(floats), e
            )
        )
        return list(table), floats.value

    def bind(self, parts: int, params: F32, grads: F32 | None) -> None:
        self._check(
            lambda e: self.lib.em_numerics_bind(self.handle, parts, _pointer(params), _pointer(grads), e)
        )

    def bind_head(self, param: F32, grad: F32) -> None:
        self.lib.em_numerics_bind_head(self.handle, _pointer(param), _pointer(grad))

    def view(self, bucket: F32, param: Param) -> F32:
        """One tensor of a bucket."""
        shape = tuple(param.shape[: param.ndim])
        return bucket[param.offset : param.offset + int(np.prod(shape))].reshape(shape)

    def named(self, bucket: F32) -> dict[str, F32]:
        return {p.name.decode(): self.view(bucket, p) for p in self.table}

    def set_params(self, params: ref.Params) -> None:
        for name, view in self.named(self.params).items():
            view[:] = params[name]

    def init(self, seed: int) -> None:
        self._check(
            lambda e: self.lib.em_numerics_init(self.handle, ALL_PARTS, seed, _pointer(self.params), e)
        )

    def _item(self, buffers: Buffers, **fields: Any) -> _Item:
        stage, item = self.config, _Item()
        item.a, item.w, item.g = (_pointer(v) for v in (buffers.a, buffers.w, buffers.g))
        item.k = _pointer(buffers.k) if self.sizes.k_bytes else None
        item.y = None if stage.has_head else _pointer(buffers.y)
        item.dx = None if stage.has_embedding else _pointer(buffers.dx)
        item.loss_sum = _pointer(buffers.loss)
        for name, value in fields.items():
            setattr(item, name, _pointer(value) if isinstance(value, np.ndarray) else value)
        return item

    def run(self, kind: str, buffers: Buffers, **fields: Any) -> None:
        """Run pass F, I, W or B; `fields` are those of em_numerics_item_t that the caller owns."""
        item = self._item(buffers, **fields)
        self._check(lambda e: self.lib.em_numerics_pass(self.handle, PASSES[kind], byref(item), e))

    def logits(self, buffers: Buffers, *, all_positions: bool, last_position: int, **fields: Any) -> F32:
        item = self._item(buffers, **fields)
        rows = self.config.microbatch * (self.config.seq if all_positions else 1)
        out = np.empty((rows, self.config.vocab), dtype=np.float32)
        self._check(
            lambda e: self.lib.em_numerics_logits(
                self.handle, byref(item), int(all_positions), last_position, _pointer(out), e
            )
        )
        return out

    def adamw(
        self,
        hyper: ref.AdamW,
        step: int,
        first: F32,
        second: F32,
        *,
        factor: float = 1.0,
        begin: int = 0,
        end: int | None = None,
    ) -> None:
        numbers = (c_double * 6)(hyper.lr, hyper.beta1, hyper.beta2, hyper.eps, hyper.weight_decay, factor)
        stop = self.num_floats if end is None else end
        views = [_pointer(b[begin:stop]) for b in (self.params, self.grads, first, second)]
        self._check(
            lambda e: self.lib.em_numerics_adamw(
                self.handle, ALL_PARTS, begin, stop, numbers, step, *views, e
            )
        )

    def sum_squares(self) -> float:
        total = c_double()
        self._check(
            lambda e: self.lib.em_numerics_sum_squares(
                self.handle, ALL_PARTS, 0, self.num_floats, _pointer(self.grads), byref(total), e
            )
        )
        return total.value


def config_of(
    model: ref.Model,
    microbatch: int,
    seq: int,
    *,
    first: int = 0,
    num: int | None = None,
    embedding: bool = True,
    head: bool = True,
    gemm: int = 0,
    slices: int = 1,
) -> Config:
    """The stage of layers [first, first + num), with or without embedding and head."""
    count = model.layers - first if num is None else num
    return Config(
        kind=int(model.llama),
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        positions=model.positions,
        tied=int(model.tied),
        first_layer=first,
        num_layers=count,
        has_embedding=int(embedding),
        has_head=int(head),
        microbatch=microbatch,
        seq=seq,
        gemm=gemm,
        norm_eps=model.norm_eps,
        rope_theta=model.rope_theta,
        slices=slices,
    )
