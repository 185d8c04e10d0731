"""One notch of each knob: the setups next to a setup, on the same GPUs and with the same batch.

A notch that cannot be had says why. Sizes go to the double and the half; what is a list (recompute, ZeRO
stages, number formats) to its neighbours; switches to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from exactmap.errors import ExactmapError
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.pipeline import schedule_name
from exactmap.sim.step.regroup import regrouped
from exactmap.sim.workload.training import Precision, Recompute, Software, Split

__all__ = ["Notch", "notches"]

_FORMATS = ("fp32", "bf16", "fp8", "fp4")
_ZERO_STAGES = range(4)
_POLICIES = {
    "none": Recompute(),
    "selective": Recompute("modules", frozenset({"core_attn"})),
    "full": Recompute("full"),
}


@dataclass(frozen=True, slots=True)
class Notch:
    """One step of one knob.

    Parameters
    ----------
    knob
        Its name.
    old, new
        Where it stands, and where it would.
    setup
        The training then; None: there is no such.
    why
        Why there is none.
    """

    knob: str
    old: str
    new: str
    setup: TrainingSetup | None
    why: str = ""


def notches(setup: TrainingSetup) -> tuple[Notch, ...]:
    """All notches next to a setup, knob by knob."""
    return (
        *_degrees(setup),
        *_microbatches(setup),
        *_recompute(setup),
        *_sharding(setup),
        *_switches(setup),
        *_precision(setup),
        _interface(setup),
    )


def _made(knob: str, old: int, new: int, make: Callable[[], TrainingSetup]) -> Notch:
    try:
        return Notch(knob, str(old), str(new), make())
    except ExactmapError as error:
        return Notch(knob, str(old), str(new), None, str(error))


def _degrees(setup: TrainingSetup) -> Iterator[Notch]:
    for knob, field in (("tp", "tp"), ("cp", "cp"), ("pp", "pp"), ("ep", "ep"), ("vpp", "chunks")):
        now: int = getattr(setup.split, field)
        barred = _barred(setup, field)
        if barred:
            yield Notch(knob, str(now), "other", None, barred)
            continue
        for other in _double_and_half(now):
            yield _made(knob, now, other, partial(regrouped, setup, **{field: other}))


def _double_and_half(now: int) -> tuple[int, ...]:
    """Neighbours of a size: its double, and its half where there is one."""
    return (2 * now,) if now % 2 else (2 * now, now // 2)


def _barred(setup: TrainingSetup, field: str) -> str:
    """Why a degree cannot be moved at all."""
    if field == "ep" and setup.model.experts is None:
        return "the model has no experts"
    if field == "chunks":
        if setup.split.pp == 1:
            return "there is no pipeline"
        name = schedule_name(setup.schedule, setup.split.pp, setup.split.chunks)
        if name not in ("1f1b", "interleaved-1f1b"):
            return f"{name} fixes its chunks"
    return ""


def _microbatches(setup: TrainingSetup) -> Iterator[Notch]:
    now = setup.batch.microbatch
    for other in _double_and_half(now):
        yield _made("microbatch", now, other, partial(regrouped, setup, microbatch=other))


def _recompute(setup: TrainingSetup) -> Iterator[Notch]:
    now = next((name for name, policy in _POLICIES.items() if policy == setup.recompute), "")
    if not now:
        now = "modules" if setup.recompute.kind == "modules" else f"{setup.recompute.share:.0%} of layers"
    for name, policy in _POLICIES.items():
        if name != now:
            yield Notch("recompute", now, name, replace(setup, recompute=policy))


def _with_split(setup: TrainingSetup, **fields: int | bool) -> TrainingSetup:
    split: Split = replace(setup.split, **fields)  # type: ignore[arg-type]
    return replace(setup, split=split)


def _sharding(setup: TrainingSetup) -> Iterator[Notch]:
    split = setup.split
    for stage in (split.zero - 1, split.zero + 1):
        if stage not in _ZERO_STAGES:
            continue
        why = "one data rank has nothing to share" if split.data_ranks == 1 else ""
        made = None if why else _with_split(setup, zero=stage)
        yield Notch("ZeRO", str(split.zero), str(stage), made, why)
    old, new = ("on", "off") if split.sequence_parallel else ("off", "on")
    why = "there is no tensor parallelism" if split.tp == 1 else ""
    if not why and setup.batch.seq // split.cp % split.tp:
        why = f"tp {split.tp} does not divide the tokens of a rank"
    if not why and split.sequence_parallel and setup.model.experts is not None:
        why = "experts under tensor parallelism need it"
    made = None if why else _with_split(setup, sequence_parallel=not split.sequence_parallel)
    yield Notch("sequence parallel", old, new, made, why)


def _with_software(setup: TrainingSetup, **fields: object) -> TrainingSetup:
    software: Software = replace(setup.software, **fields)  # type: ignore[arg-type]
    return replace(setup, software=software)


def _switches(setup: TrainingSetup) -> Iterator[Notch]:
    software = setup.software
    for knob, field in (
        ("overlap gradients", "overlap_grad"),
        ("overlap parameters", "overlap_param"),
        ("overlap tp", "overlap_tp"),
        ("overlap pp", "overlap_p2p"),
        ("overlap ep", "overlap_ep"),
    ):
        now = bool(getattr(software, field))
        old, new = ("on", "off") if now else ("off", "on")
        why = _nothing_to_overlap(setup.split, field)
        made = None if why else _with_software(setup, **{field: not now})
        yield Notch(knob, old, new, made, why)
    graphs = software.cuda_graphs
    wanted: frozenset[str] = frozenset() if graphs else frozenset({"full"})
    old, new = ("on", "off") if graphs else ("off", "full")
    yield Notch("CUDA graphs", old, new, _with_software(setup, cuda_graphs=wanted))


def _nothing_to_overlap(split: Split, field: str) -> str:
    """Why an overlap changes nothing whatever it says; empty: it does."""
    reasons = {
        "overlap_grad": (
            (split.data_ranks == 1, "one data rank reduces nothing"),
            (split.zero == 3, "ZeRO 3 always overlaps"),
        ),
        "overlap_param": (
            (split.data_ranks == 1 or not split.zero, "parameters are not gathered"),
            (split.zero == 3, "ZeRO 3 always overlaps"),
        ),
        "overlap_tp": (
            (split.tp == 1, "there is no tensor parallelism"),
            (not split.sequence_parallel, "only exchanges of sequence parallelism can be cut in pieces"),
        ),
        "overlap_p2p": ((split.pp == 1, "there is no pipeline"),),
        "overlap_ep": ((split.ep == 1, "experts are not spread"),),
    }
    return next((why for holds, why in reasons[field] if holds), "")


def _precision(setup: TrainingSetup) -> Iterator[Notch]:
    precision, gpu = setup.precision, setup.cluster.gpu
    now = "bf16" if precision.compute == "fp16" else precision.compute
    place = _FORMATS.index(now)
    for other in (place - 1, place + 1):
        # Nobody goes back to 32 bits.
        if not 1 <= other < len(_FORMATS):
            continue
        name = _FORMATS[other]
        if name not in gpu.peak_flop_per_s:
            yield Notch("precision", precision.compute, name, None, f"{gpu.name} has no {name} arithmetic")
            continue
        yield Notch(
            "precision", precision.compute, name, replace(setup, precision=_in_format(precision, name))
        )


def _in_format(precision: Precision, name: str) -> Precision:
    """The same mixed precision with products in another format; wide products change what is kept too."""
    if name == "fp32":
        return Precision("fp32", "fp32", param_bytes=4, master_bytes=0, gather_bytes=4)
    if precision.compute == "fp32":
        return Precision()
    scaling = {"fp8": "tensor", "fp4": "nv"}.get(name, "")
    return replace(precision, name="nvfp4" if name == "fp4" else name, compute=name, scaling=scaling)


def _interface(setup: TrainingSetup) -> Notch:
    cluster = setup.cluster
    rate = cluster.scale_out.bytes_per_s
    # A second interface, on planes of its own: switches stay as they are.
    faster = replace(
        cluster,
        scale_out=replace(cluster.scale_out, bytes_per_s=2 * rate),
        fabric=replace(cluster.fabric, planes=2 * cluster.fabric.planes),
    )
    old, new = (f"{each / 125e6:.4g}" for each in (rate, 2 * rate))
    return Notch("Gb/s per GPU", old, new, replace(setup, cluster=faster))
