"""Constants of GPUs and of software releases: few, named, each with its source, shared by all models.

``data/constants.csv`` has one row per constant: scope (``gpu`` or ``software``), whose (a GPU's curves; a
family, or family@release), its name, value, and where it comes from (``fitted`` by ``exactmap validate
--fit``, or a publication). A release that has none of its own takes its family's newest.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files

from exactmap.sim.workload.training import Software
from exactmap.topology.hardware import GPU

__all__ = [
    "GpuConstants",
    "SoftwareConstants",
    "Table",
    "constants_table",
    "constants_text",
    "forget_constants",
    "gpu_constants",
    "has_own_constants",
    "nearest_release",
    "software_constants",
]


@dataclass(frozen=True, slots=True)
class GpuConstants:
    """Of a GPU type: at most twelve.

    Parameters
    ----------
    gemm, attention_forward, attention_backward, memory
        Rate in training over what the curves (for memory: the share of bandwidth) say.
    narrow, grouped, grouped_narrow
        Further factor on rates of products in 8 and 4 bits, of experts' products in 16 bits, and of those in
        8 and 4.
    scan
        Share of the 16-bit peak that a Mamba-2 scan reaches: its chunks are small, half its work is not in
        products, and its kernels are written in Triton for Hopper.
    launch_ns
        Time between two kernels of one stream.
    overlap_slowdown
        Relative growth of compute while communication runs beside it.
    spread
        Standard deviation of a GPU's compute time among equal ones, in 16 bits; twice that in narrower
        formats, which draw more power.
    scatter, scatter_experts
        Standard deviation of log(measured / predicted) over the rows that were fitted: dense models, mixtures
        of experts.
    """

    gemm: float = 1.0
    attention_forward: float = 1.0
    attention_backward: float = 1.0
    grouped: float = 0.8
    memory: float = 0.85
    narrow: float = 1.0
    grouped_narrow: float = 1.0
    scan: float = 0.1
    launch_ns: float = 1500.0
    overlap_slowdown: float = 0.1
    spread: float = 0.012
    scatter: float = 0.12
    scatter_experts: float = 0.2


@dataclass(frozen=True, slots=True)
class SoftwareConstants:
    """Of a release of a framework: at most twelve.

    Parameters
    ----------
    host_ns
        Host time per kernel launch, with the Python around it: a pass never takes less than its launches.
    step_ns
        Host time of a step outside its passes.
    tensor_ns
        Host time of a step for each weight that a rank holds: loops over gradients and parameters around the
        optimizer.
    handover_ns
        Host time that a pass begins with after a message between pipeline ranks that blocked: nothing was
        launched ahead.
    skew_ns
        Standard deviation of when the ranks of a tensor-parallel group reach an exchange.
    traffic
        Bytes that operators bound by memory move over the ideal of `layer_work`.
    gemm, grouped, attention, narrow
        Further factors on rates of products, of experts' products, of attention, of products in 8 and 4 bits.
    wide_gemm
        Further factor on the rate of products with a side of more than 32,768: a vocabulary in one piece.
    exposed_grad, exposed_param
        Share of overlapped gradient reduction and parameter gathering that stays exposed nevertheless.
    shard_wire
        Time of gathers and scatters of sharded parameters (ZeRO 3) over what the library takes.
    expert_ns
        Time that the product of one expert takes beside its arithmetic where experts are a loop of products:
        its scales are put in order by kernels of their own, and streams wait for one another.
    exposed_tp
        What a tensor-parallel exchange inside a product costs the product, over the time that they run at
        once.
    """

    host_ns: float = 8000.0
    step_ns: float = 10e6
    tensor_ns: float = 100e3
    handover_ns: float = 100e3
    skew_ns: float = 0.0
    traffic: float = 1.2
    gemm: float = 1.0
    grouped: float = 1.0
    attention: float = 1.0
    narrow: float = 1.0
    wide_gemm: float = 1.0
    exposed_grad: float = 0.1
    exposed_param: float = 0.1
    expert_ns: float = 15e3
    exposed_tp: float = 0.15
    shard_wire: float = 1.0


Table = dict[tuple[str, str], dict[str, float]]


def constants_text() -> str:
    """Text of the packaged table."""
    return files("exactmap.sim.cost").joinpath("data", "constants.csv").read_text(encoding="utf-8")


@cache
def constants_table() -> Table:
    """Constants by (scope, whose); who changes one calls `forget_constants`."""
    lines = [line for line in constants_text().splitlines() if line and not line.startswith("#")]
    table: Table = {}
    for row in csv.DictReader(lines):
        table.setdefault((row["scope"], row["whose"]), {})[row["constant"]] = float(row["value"])
    return table


def forget_constants() -> None:
    """Read the table anew for what is asked next."""
    _named_gpu.cache_clear()
    software_constants.cache_clear()


def gpu_constants(gpu: GPU) -> GpuConstants:
    """Constants of a GPU: its own, and what it has none of from the GPU whose kernels' curves it shares."""
    return _named_gpu(gpu.kernels or gpu.curves, gpu.name)


_SAME_CHIP = {"B300": "GB300"}
"""GPUs of one chip with few runs of their own take the constants of the one with more."""


@cache
def _named_gpu(curves: str, name: str) -> GpuConstants:
    table = constants_table()
    values: dict[str, float] = {}
    for whose in (_SAME_CHIP.get(curves), curves, name):
        values.update(table.get(("gpu", whose or ""), {}))
    return replace(GpuConstants(), **values)


def nearest_release(software: Software) -> str:
    """Release whose constants hold: its own, the one it mends (26.02 for 26.02.01), or the newest."""
    known = sorted(
        whose.partition("@")[2] for _, whose in constants_table() if whose.startswith(f"{software.family}@")
    )
    if not software.release or not known:
        return ""
    own = [release for release in known if software.release.startswith(release)]
    # Numbered versions ("r0.8.0") are older than years and months.
    return own[-1] if own else max(known, key=lambda release: (release[0].isdecimal(), release))


def has_own_constants(software: Software) -> bool:
    """Whether a release was checked: its family has constants, and none are of another release.

    A family without releases of its own, or a run whose release is not stated, counts by the family.
    """
    table = constants_table()
    nearest = nearest_release(software)
    if nearest:
        return software.release.startswith(nearest)
    return any(whose.partition("@")[0] == software.family for scope, whose in table if scope == "software")


@cache
def software_constants(software: Software) -> SoftwareConstants:
    """Constants of a release; those that it has none of are its family's."""
    known = {field.name for field in fields(SoftwareConstants)}
    table = constants_table()
    values = dict(table.get(("software", software.family), {}))
    values.update(table.get(("software", f"{software.family}@{nearest_release(software)}"), {}))
    return replace(SoftwareConstants(), **{name: value for name, value in values.items() if name in known})
