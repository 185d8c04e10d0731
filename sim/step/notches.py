"""One notch of each knob: the setups next to a setup, on the same GPUs and with the same batch.

A notch that cannot be had says why. Sizes go to the double and the half; what is a list (recompute, ZeRO
stages, number formats) to its neighbours; switches to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from exactmap.errors import ExactmapError, InfeasibleError
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


def _made(knob: str, old: str, new: str, make: Callable[[], TrainingSetup]) -> Notch:
    try:
        return Notch(knob, old, new, make())
    except ExactmapError as error:
        return Notch(knob, old, new, None, str(error))


def _no(why: str) -> TrainingSetup:
    raise InfeasibleError(why)


def _degrees(setup: TrainingSetup) -> Iterator[Notch]:
    split = setup.split
    for knob, field in (("tp", "tp"), ("cp", "cp"), ("pp", "pp"), ("ep", "ep"), ("vpp", "chunks")):
        now: int = getattr(split, field)
        barred = _barred(setup, field)
        if barred:
            yield Notch(knob, str(now), "other", None, barred)
            continue
        yield _made(knob, str(now), str(2 * now), lambda f=field, n=2 * now: regrouped(setup, **{f: n}))  # type: ignore[misc]
        if now % 2 == 0:
            yield _made(knob, str(now), str(now // 2), lambda f=field, n=now // 2: regrouped(setup, **{f: n}))  # type: ignore[misc]
        elif now > 1:
            yield Notch(knob, str(now), "half", None, f"{now} is odd")


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
    yield _made("microbatch", str(now), str(2 * now), lambda: regrouped(setup, microbatch=2 * now))
    if now > 1:
        yield _made(
            "microbatch",
            str(now),
            str(now // 2),
            lambda: _no(f"{now} is odd") if now % 2 else regrouped(setup, microbatch=now // 2),
        )


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
    made = None if why else _with_split(setup, sequence_parallel=not split.sequence_parallel)
    yield Notch("sequence parallel", old, new, made, why)


def _with_software(setup: TrainingSetup, **fields: object) -> TrainingSetup:
    software: Software = replace(setup.software, **fields)  # type: ignore[arg-type]
    return replace(setup, software=software)


def _switches(setup: TrainingSetup) -> Iterator[Notch]:
    split, software = setup.split, setup.software
    fully = split.zero == 3
    tokens_whole = split.tp > 1 and not split.sequence_parallel
    for knob, field, why in (
        (
            "overlap gradients",
            "overlap_grad",
            "one data rank reduces nothing"
            if split.data_ranks == 1
            else "ZeRO 3 always overlaps"
            if fully
            else "",
        ),
        (
            "overlap parameters",
            "overlap_param",
            "ZeRO 3 always overlaps"
            if fully
            else "parameters are not gathered"
            if not split.zero or split.data_ranks == 1
            else "",
        ),
        (
            "overlap tp",
            "overlap_tp",
            "there is no tensor parallelism"
            if split.tp == 1
            else "only gathers and scatters of sequence parallelism are cut"
            if tokens_whole
            else "",
        ),
        ("overlap pp", "overlap_p2p", "there is no pipeline" if split.pp == 1 else ""),
        ("overlap ep", "overlap_ep", "experts are not spread" if split.ep == 1 else ""),
    ):
        now = bool(getattr(software, field))
        old, new = ("on", "off") if now else ("off", "on")
        made = None if why else _with_software(setup, **{field: not now})
        yield Notch(knob, old, new, made, why)
    graphs = software.cuda_graphs
    wanted: frozenset[str] = frozenset() if graphs else frozenset({"full"})
    yield Notch(
        "CUDA graphs",
        "on" if graphs else "off",
        "off" if graphs else "full",
        _with_software(setup, cuda_graphs=wanted),
    )


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
