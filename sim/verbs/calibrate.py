"""Measure this host with the engine's own operators, for plans that it is going to run.

Each shape (a model's dimensions, tokens, microbatch) is timed by ``exactmap-run --time-ops``: whole passes
of a layer, the embedding and the head, the optimizer, the norm, with all ranks at work. Shapes are visited
in turn, several times, so that a disturbance of seconds falls on all of them alike and the median drops it.
A visit during which other processes took part of the cores is repeated, up to a limit, and counts only if
none was left alone.
What does not depend on the shape (hand-over, copies, the cost of an instruction) is the median over all
visits.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from exactmap.backend_c.run import engine_version, time_ops
from exactmap.errors import ExecutionFailedError, InvalidInputError, Place
from exactmap.files import write_atomically
from exactmap.sim.cost.host import (
    AllReduceTime,
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
)
from exactmap.sim.cost.plan_header import model_of
from exactmap.sim.plan.check import load_plan
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.verbs.host_load import QUIET_SHARE, LoadMeter
from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.plain import require_plain
from exactmap.sim.workload.presets import find_preset

__all__ = ["DEFAULT_OUT", "Shape", "calibrate", "default_shapes", "shapes_of_plan", "shapes_of_scenario"]

DEFAULT_OUT = "hardware-profile.json"
BUDGET_S = 40.0
QUICK_BUDGET_S = 8.0
NUM_VISITS = 3
MAX_VISITS = 6
MIN_REPEATS, MAX_REPEATS = 5, 41
MAX_RANKS = 64
AUTO_MICROBATCHES = (1, 2, 4, 8)

# Models over bytes that come along, as the scenarios for this host use them: sequence and microbatches.
_DEFAULTS = (("byte-tiny", 64, (1, 2)), ("byte-llama", 128, (2, 4, 8)), ("byte-gpt", 128, (2, 4, 8)))

_STEPS = ("F", "I", "W", "B")
_PARTS = ("layer", "embedding", "head")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a rank works on: a model's dimensions, tokens in a sequence, sequences, layers in a stage."""

    model: ModelConfig
    seq: int
    microbatch: int
    layers: int

    def words(self) -> dict[str, int | str]:
        """As the engine's options say it."""
        model = self.model
        return {
            "kind": model.kind.value,
            "layers": self.layers,
            "hidden": model.hidden,
            "heads": model.heads,
            "kv_heads": model.kv_heads,
            "head_dim": model.head_dim,
            "ffn": model.ffn,
            "vocab": model.vocab,
            "seq": self.seq,
            "microbatch": self.microbatch,
        }


class _Sized(BaseModel):
    num_elements: Annotated[int, Field(ge=1)]
    ns: int


class _Moved(BaseModel):
    num_bytes: Annotated[int, Field(ge=1)]
    ns: int


class _Summed(_Moved):
    num_members: int


class _Told(BaseModel):
    hand_over_ns: int
    post_ns: int


class _Timed(BaseModel):
    """The document of ``exactmap-run --time-ops``."""

    kernels: str
    pass_ns: Mapping[str, Mapping[str, int]]
    adamw: _Sized
    sum_squares: _Sized
    copies: tuple[_Moved, ...]
    all_reduce: tuple[_Summed, ...]
    awake: _Told
    asleep: _Told
    instruction_ns: float


def default_shapes() -> tuple[Shape, ...]:
    """The models over bytes that come along, at several microbatches, two layers a stage."""
    return tuple(
        Shape(find_preset(name), seq, microbatch, 2)
        for name, seq, microbatches in _DEFAULTS
        for microbatch in microbatches
    )


def shapes_of_plan(path: str | Path) -> tuple[Shape, ...]:
    """What a plan's ranks work on: its model at its microbatch, with the layers of its fullest stage."""
    plan, _ = load_plan(path)
    layers = max(1, *(stage.num_layers for stage in plan.stages))
    return (Shape(model_of(plan.model), plan.train.seq, plan.train.microbatch, layers),)


def shapes_of_scenario(path: str | Path) -> tuple[Shape, ...]:
    """The scenario's model at every microbatch that its search may choose."""
    scenario = load_scenario(path)
    require_plain(scenario.model, Place(scenario.path, field="model"))
    batch = scenario.training.batch_sequences
    chosen = scenario.parallel.microbatch or AUTO_MICROBATCHES
    layers = min(2, scenario.model.layers)
    return tuple(
        Shape(scenario.model, scenario.training.sequence, microbatch, layers)
        for microbatch in chosen
        if microbatch <= batch
    )


def calibrate(
    out: str | Path | None = DEFAULT_OUT,
    *,
    plans: Sequence[str | Path] = (),
    scenarios: Sequence[str | Path] = (),
    shapes: Sequence[Shape] = (),
    ranks: int | None = None,
    quick: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> HostProfile:
    """Measure this host.

    Parameters
    ----------
    out
        Where to write the hardware profile, whole or not at all; None: nowhere.
    plans, scenarios, shapes
        What is going to run here: their shapes are measured. None of them: the models over bytes that come
        along.
    ranks
        Ranks at work at the same time, as in the plans; None: the cores of this host, at least 2.
    quick
        A fifth of the time, with fewer samples.
    progress
        Told the fraction done and what is being timed.

    Returns
    -------
    HostProfile
        Medians, in integer ns.

    Raises
    ------
    InvalidInputError
        If a plan or scenario is not valid, or `ranks` is out of range.
    ExecutionFailedError, MissingRequirementError
        If the engine fails or is not there.
    """
    num_ranks = min(max(2, len(os.sched_getaffinity(0))), MAX_RANKS) if ranks is None else ranks
    if not 2 <= num_ranks <= MAX_RANKS:
        raise InvalidInputError(
            "cannot time so many ranks", got=f"{num_ranks} ranks", expected=f"2 to {MAX_RANKS}"
        )
    wanted = [*shapes]
    wanted += [shape for path in plans for shape in shapes_of_plan(path)]
    wanted += [shape for path in scenarios for shape in shapes_of_scenario(path)]
    chosen = tuple(dict.fromkeys(wanted or default_shapes()))
    visits = _visit_all(chosen, num_ranks, QUICK_BUDGET_S if quick else BUDGET_S, progress)
    profile = _profile({shape: _undisturbed(found) for shape, found in visits.items()}, num_ranks)
    if out is not None:
        write_atomically(out, profile.to_json())
    return profile


@dataclass(frozen=True, slots=True)
class _Visit:
    """What the engine measured of a shape, and the share of the cores that others took meanwhile."""

    timed: _Timed
    others_share: float

    @property
    def quiet(self) -> bool:
        return self.others_share <= QUIET_SHARE


def _visit_all(
    shapes: Sequence[Shape],
    num_ranks: int,
    budget_s: float,
    progress: Callable[[float, str], None] | None,
) -> dict[Shape, list[_Visit]]:
    """Time all shapes in turn; the first visit of each says how many repeats its later ones can afford."""
    visits: dict[Shape, list[_Visit]] = {shape: [] for shape in shapes}
    repeats = dict.fromkeys(shapes, MIN_REPEATS)
    visit_s = budget_s / (NUM_VISITS * len(shapes))
    meter = LoadMeter()
    for number in range(MAX_VISITS):
        for place, shape in enumerate(shapes):
            if sum(visit.quiet for visit in visits[shape]) >= NUM_VISITS:
                continue
            if progress is not None:
                share = min(0.95, (number + place / len(shapes)) / NUM_VISITS)
                model = f"{shape.model.kind} of width {shape.model.hidden}"
                progress(share, f"timing {model}, {shape.microbatch} x {shape.seq} tokens")
            meter.restart()
            start = time.perf_counter()
            timed = _time(shape, num_ranks, repeats[shape])
            spent_s = time.perf_counter() - start
            visits[shape].append(_Visit(timed, meter.others_share()))
            affordable = int(repeats[shape] * visit_s / spent_s)
            repeats[shape] = min(max(affordable, MIN_REPEATS), MAX_REPEATS)
    return visits


def _undisturbed(visits: Sequence[_Visit]) -> list[_Visit]:
    """The visits that count: the quiet ones, or all if there was none."""
    return [visit for visit in visits if visit.quiet] or list(visits)


def _time(shape: Shape, num_ranks: int, repeats: int) -> _Timed:
    document = time_ops(shape.words() | {"repeats": repeats, "threads": num_ranks})
    try:
        return _Timed.model_validate(document)
    except ValidationError as error:
        raise ExecutionFailedError(
            "the engine's timings cannot be read",
            got=str(error.errors()[0]["loc"]),
            hint="the engine and the package are of different versions; install both again",
        ) from None


def _profile(counted: Mapping[Shape, Sequence[_Visit]], num_ranks: int) -> HostProfile:
    documents = {shape: [visit.timed for visit in found] for shape, found in counted.items()}
    visits = [document for found in documents.values() for document in found]
    others = median(visit.others_share for found in counted.values() for visit in found)
    return HostProfile(
        host=_facts(visits[0].kernels, others),
        ranks_at_once=num_ranks,
        passes=tuple(entry for shape, found in documents.items() for entry in _passes(shape, found)),
        optimizer=_by_elements((visit.adamw.num_elements, visit.adamw.ns) for visit in visits),
        norm=_by_elements((visit.sum_squares.num_elements, visit.sum_squares.ns) for visit in visits),
        copies=tuple(
            BytesTime(bytes=num_bytes, ns=ns)
            for num_bytes, ns in _medians(
                (copy.num_bytes, copy.ns) for visit in visits for copy in visit.copies
            )
        ),
        awake=_hand_over([visit.awake for visit in visits]),
        asleep=_hand_over([visit.asleep for visit in visits]),
        all_reduce=tuple(
            AllReduceTime(ranks=num_ranks, bytes=num_bytes, ns=ns)
            for num_bytes, ns in _medians(
                (total.num_bytes, total.ns) for visit in visits for total in visit.all_reduce
            )
        ),
        instruction_ns=round(median(visit.instruction_ns for visit in visits)),
    )


def _passes(shape: Shape, found: Sequence[_Timed]) -> Iterable[PassSample]:
    model = shape.model
    for part in _PARTS:
        for step in _STEPS:
            if (part, step) == ("embedding", "I"):
                continue  # nothing to do
            name, num = ("layers", shape.layers) if part == "layer" else (part, 1)
            ns = median(document.pass_ns[name][step] for document in found) / num
            yield PassSample.model_validate(
                {
                    "part": part,
                    "step": step,
                    "kind": model.kind.value,
                    "hidden": model.hidden,
                    "heads": model.heads,
                    "kv_heads": model.kv_heads,
                    "head_dim": model.head_dim,
                    "ffn": model.ffn,
                    "vocab": model.vocab,
                    "seq": shape.seq,
                    "microbatch": shape.microbatch,
                    "ns": max(1, round(ns)),
                }
            )


def _hand_over(samples: Sequence[_Told]) -> HandOver:
    return HandOver(
        post_ns=round(median(sample.post_ns for sample in samples)),
        wake_ns=round(median(max(0, sample.hand_over_ns - sample.post_ns) for sample in samples)),
    )


def _by_elements(samples: Iterable[tuple[int, int]]) -> tuple[ElementsTime, ...]:
    return tuple(ElementsTime(elements=size, ns=ns) for size, ns in _medians(samples))


def _medians(samples: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(size, median of its samples), by size."""
    groups: dict[int, list[int]] = {}
    for size, ns in samples:
        groups.setdefault(size, []).append(ns)
    return [(size, round(median(values))) for size, values in sorted(groups.items())]


def _facts(kernels: str, others_share: float) -> HostFacts:
    return HostFacts(
        cpu=_processor(),
        num_cores=len(os.sched_getaffinity(0)),
        blas=kernels,
        engine=engine_version(),
        others_share=round(others_share, 4),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine() or "unknown"
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine() or "unknown"
