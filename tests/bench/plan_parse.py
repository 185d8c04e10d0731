"""How long the C reader takes for a large plan, phase by phase: medians of five, in CPU milliseconds.

    python tests/bench/plan_parse.py [--ranks 64] [--microbatches 512] [--chunks 4] [--plan FILE]

Without a file, an interleaved 1F1B plan is built first.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from exactmap.backend_c.locate import library_path

TURNS = 5


class Times(ctypes.Structure):
    """`em_plan_times_t` of exactmap/plan.h."""

    _fields_: ClassVar = [
        (name, ctypes.c_uint64) for name in ("text", "hash", "head", "programs", "pairs", "progress")
    ]


def neighbour(name: str) -> ModuleType:
    """Another script of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(library: ctypes.CDLL, data: bytes) -> dict[str, float]:
    """Milliseconds of each phase of one reading."""
    plan, times = ctypes.c_void_p(), Times()
    verdict = ctypes.create_string_buffer(1 << 14)
    status = library.em_plan_read_timed(
        data, ctypes.c_size_t(len(data)), ctypes.byref(plan), verdict, ctypes.byref(times)
    )
    if status != 0:
        raise SystemExit(f"the plan is refused: status {status}")
    library.em_plan_free(plan)
    return {name: getattr(times, name) / 1e6 for name, _ in Times._fields_}


def main() -> int:
    """Print one line per phase."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--microbatches", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--plan", type=Path)
    options = parser.parse_args()
    if options.plan:
        data = options.plan.read_bytes()
    else:
        data = neighbour("plan_check").built(options.ranks, options.microbatches, options.chunks)
    found = [read(ctypes.CDLL(str(library_path())), data) for _ in range(TURNS)]
    print(f"{data.count(10)} lines, {len(data)} bytes")
    for name in found[0]:
        print(f"{name:10} {statistics.median(one[name] for one in found):8.1f} ms")
    total = statistics.median(sum(one.values()) for one in found)
    print(f"{'all':10} {total:8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
