"""The kernel table of the C engine (`src/nn/em_kernels.h`) through ctypes, for tests of single operators."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

import numpy as np

__all__ = ["OPENBLAS", "PORTABLE", "AdamwStep", "Attention", "call", "kernels"]

OPENBLAS, PORTABLE = 1, 2

_u64, _u32, _f32, _ptr, _flag = c_uint64, c_uint32, c_float, c_void_p, c_bool


class Attention(Structure):
    _fields_ = [
        (name, c_uint32) for name in ("batch", "seq", "first", "rows", "heads", "kv_heads", "head_dim")
    ] + [(name, c_uint64) for name in ("ld_q", "ld_kv", "ld_dq", "ld_dkv")]


class AdamwStep(Structure):
    _fields_ = [
        (name, c_float)
        for name in (
            "lr",
            "beta1",
            "beta2",
            "one_minus_beta1",
            "one_minus_beta2",
            "eps",
            "decay",
            "inv_correction1",
            "inv_correction2",
            "grad_scale",
        )
    ]


_attention = POINTER(Attention)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "gemm": (None, _flag, _flag, _u64, _u64, _u64, _f32, _ptr, _u64, _ptr, _u64, _f32, _ptr, _u64),
    "column_sum": (None, _u64, _u64, _ptr, _u64, _flag, _ptr),
    "add": (None, _u64, _ptr, _ptr),
    "add_row": (None, _u64, _u64, _ptr, _ptr, _ptr),
    "norm_forward": (None, _u64, _u64, _flag, _f32, _ptr, _ptr, _ptr, _ptr, _ptr, _ptr),
    "norm_scale": (None, _u64, _u64, _ptr, _ptr, _ptr, _ptr),
    "norm_backward": (None, _u64, _u64, _flag, _ptr, _ptr, _ptr, _ptr, _ptr, _ptr, _flag, _ptr, _ptr),
    "gelu_forward": (None, _u64, _ptr, _ptr),
    "gelu_backward": (None, _u64, _ptr, _ptr, _ptr),
    "swiglu_forward": (None, _u64, _u64, _ptr, _ptr),
    "swiglu_backward": (None, _u64, _u64, _ptr, _ptr, _ptr),
    "rotary": (None, _u64, _u32, _u32, _u32, _u64, _ptr, _flag, _ptr),
    "attention_forward": (None, _attention, *[_ptr] * 5),
    "attention_backward": (None, _attention, *[_ptr] * 7, _flag, _ptr),
    "embed_forward": (None, _u64, _u64, _u32, _ptr, _ptr, _ptr, _ptr),
    "embed_backward": (None, _u64, _u64, _u32, _ptr, _ptr, _ptr, _ptr),
    "cross_entropy_forward": (c_double, _u64, _u64, _ptr, _ptr, _ptr),
    "cross_entropy_backward": (None, _u64, _u64, _ptr, _ptr, _f32, _ptr),
    "adamw": (None, _u64, POINTER(AdamwStep), _ptr, _ptr, _ptr, _ptr),
    "sum_squares": (c_double, _u64, _ptr),
    "adamw_undo": (None, _u64, POINTER(AdamwStep), _flag, _f32, _ptr, _ptr, _ptr, _ptr),
}


class _Table(Structure):
    _fields_ = [("name", c_char_p), *((name, CFUNCTYPE(*types)) for name, types in _SIGNATURES.items())]


def kernels(lib: ctypes.CDLL, gemm: int) -> Any:
    """The table for one way to multiply matrices; None where the build lacks it."""
    lib.em_cpu_kernels.restype = POINTER(_Table)
    table = lib.em_cpu_kernels(gemm)
    return table.contents if table else None


def call(table: Any, name: str, *arguments: Any) -> Any:
    """Call a kernel; arrays go as pointers to their first number."""
    plain = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    return getattr(table, name)(*plain)
