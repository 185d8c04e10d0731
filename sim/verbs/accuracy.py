"""How well a calibrated host predicts itself: plans are priced first, then run, and the step times compared.

The step time is the barrier makespan on both sides: from the start that all ranks share to the last END of
any rank (plan format, section 3.8). The prediction takes it from the replay engine with the durations that
the hardware profile gives; the measurement is the median over the traced steps of a run.

Plans of one size train the same batch, so the order of their step times is what a planner would choose by:
Kendall's tau-b compares the predicted and the measured order, and the regret is what the plan that the
prediction chooses loses against the one that runs fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import ceil, sqrt
from pathlib import Path
from statistics import median, median_low

from exactmap.backend_c.run import RunOptions, run_plan
from exactmap.files import write_atomically
from exactmap.sim.cost.host import HostProfile, PassSample
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.trace_file import read_trace
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.verbs.calibrate import Shape, calibrate
from exactmap.sim.verbs.host_load import QUIET_SHARE, LoadMeter, wait_until_quiet
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.sim.workload.presets import find_preset

__all__ = [
    "AccuracyReport",
    "AccuracyRow",
    "Case",
    "Size",
    "accuracy",
    "accuracy_cases",
    "accuracy_sizes",
    "drift",
    "kendall_tau",
]

NUM_STEPS = 20
NUM_WARM_UP_STEPS = 2
SCHEDULES = (("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 2), ("zb-h1", 1))
MICROBATCH_COUNTS = (2, 4, 8)
PP = 2
MAX_RUNS = 4
MAX_WAIT_S = 15.0
MAX_CALIBRATION_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    """A model and the batch that all its plans train: `batch` sequences of `seq` tokens a step."""

    name: str
    model: ModelConfig
    seq: int
    batch: int


@dataclass(frozen=True, slots=True)
class Case:
    """One plan of the comparison."""

    size: str
    schedule: str
    num_microbatches: int
    plan: Plan

    @property
    def name(self) -> str:
        """File name without ending."""
        return f"{self.size}-{self.schedule}-m{self.num_microbatches}"


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """Predicted and measured step time of a plan, in ns; low and high are the 10th and 90th percentile.

    `others_share` is the share of the cores that other processes took while it ran.
    """

    size: str
    schedule: str
    num_microbatches: int
    predicted_ns: int
    measured_ns: int
    low_ns: int
    high_ns: int
    others_share: float = 0.0

    @property
    def error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.predicted_ns / self.measured_ns - 1


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """All rows, the host, and how its passes had changed when all was run (`drift`, a share)."""

    rows: tuple[AccuracyRow, ...]
    host: HostProfile
    num_steps: int
    drift: float

    @property
    def errors(self) -> list[float]:
        """Absolute errors, ascending."""
        return sorted(abs(row.error) for row in self.rows)

    @property
    def median_error(self) -> float:
        """Median of the absolute errors."""
        return median(self.errors)

    @property
    def p90_error(self) -> float:
        """The absolute error that nine of ten plans stay within."""
        return self.errors[ceil(0.9 * len(self.errors)) - 1]

    @property
    def worst_error(self) -> float:
        """The largest absolute error."""
        return self.errors[-1]

    @property
    def others_share(self) -> float:
        """Share of the cores that others took during the most disturbed run that counts."""
        return max(row.others_share for row in self.rows)

    @property
    def bias(self) -> float:
        """Median of the errors with their sign: above 0 the prediction is too slow."""
        return median(row.error for row in self.rows)

    def of_size(self, size: str) -> list[AccuracyRow]:
        """Rows of one size."""
        return [row for row in self.rows if row.size == size]

    @property
    def sizes(self) -> list[str]:
        """Sizes in their order."""
        return list(dict.fromkeys(row.size for row in self.rows))

    def tau(self, size: str) -> float:
        """Kendall's tau-b of the predicted and the measured order within a size."""
        rows = self.of_size(size)
        return kendall_tau([row.predicted_ns for row in rows], [row.measured_ns for row in rows])

    def regret(self, size: str) -> float:
        """What the plan that is predicted fastest loses against the fastest, as a share."""
        rows = self.of_size(size)
        chosen = min(rows, key=lambda row: row.predicted_ns)
        return chosen.measured_ns / min(row.measured_ns for row in rows) - 1

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "accuracy",
            "num_plans": len(self.rows),
            "num_steps": self.num_steps,
            "median_error": self.median_error,
            "p90_error": self.p90_error,
            "worst_error": self.worst_error,
            "bias": self.bias,
            "drift": self.drift,
            "others_share": self.others_share,
            "sizes": [
                {"size": size, "kendall_tau": self.tau(size), "regret": self.regret(size)}
                for size in self.sizes
            ],
            "host": self.host.host.model_dump(),
            "rows": [asdict(row) | {"error": row.error} for row in self.rows],
        }


def accuracy_sizes() -> tuple[Size, ...]:
    """Two models over bytes: 0.8 million parameters (Llama) and 6.5 million (GPT)."""
    wide = ModelConfig(
        kind=ModelKind.GPT,
        layers=8,
        hidden=256,
        heads=8,
        kv_heads=8,
        head_dim=32,
        ffn=1024,
        vocab=259,
        positions=256,
        tied=False,
        name="byte-gpt-wide",
    )
    return (Size("llama-0.9M", find_preset("byte-llama"), 128, 16), Size("gpt-6.5M", wide, 128, 8))


def accuracy_cases(sizes: Sequence[Size] | None = None) -> tuple[Case, ...]:
    """All plans: every size with each schedule and number of microbatches on two pipeline ranks."""
    return tuple(
        Case(size.name, schedule, count, _plan(size, schedule, chunks, count))
        for size in sizes or accuracy_sizes()
        for count in MICROBATCH_COUNTS
        for schedule, chunks in SCHEDULES
    )


def _plan(size: Size, schedule: str, chunks: int, count: int) -> Plan:
    return build_plan(
        size.model,
        schedule=schedule,
        pp=PP,
        chunks=chunks,
        num_microbatches=count,
        microbatch=size.batch // count,
        seq=size.seq,
        optimizer=OptimizerSettings(lr=1e-3, lr_min=1e-4, warmup=10, steps=100),
    )


def accuracy(
    out: str | Path,
    *,
    data: str | Path | None = None,
    sizes: Sequence[Size] | None = None,
    num_steps: int = NUM_STEPS,
    quick: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> AccuracyReport:
    """Calibrate this host, predict the plans, run them, compare.

    Parameters
    ----------
    out
        Folder for the plans, their traces and ``hardware-profile.json``.
    data
        A folder that `data` made; None: the default corpus, made in ``out/data``.
    sizes
        Models and batches; None: those of `accuracy_sizes`.
    num_steps
        Traced steps of each run; two steps before them warm the caches up.
    quick
        Calibrate with fewer samples.
    progress
        Told the fraction done and what is being done.

    Raises
    ------
    ExactmapError
        If calibration or a run fails.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    tell = progress or _tell_nobody
    tokens = folder / "data" if data is None else Path(data)
    if data is None and not (tokens / "dataset.json").is_file():
        from exactmap.sim.data.dataset import build_dataset

        build_dataset((), tokens)
    cases = accuracy_cases(sizes)
    shapes = tuple(dict.fromkeys(_shape(case.plan, sizes or accuracy_sizes(), case.size) for case in cases))
    host = _calibrate_undisturbed(
        folder / "hardware-profile.json", shapes, quick, lambda share, what: tell(0.25 * share, what)
    )
    rows: list[AccuracyRow] = []
    for number, case in enumerate(cases):
        tell(0.25 + 0.7 * number / len(cases), f"running {case.name}")
        rows.append(_run_undisturbed(case, host, folder, tokens, num_steps))
    tell(0.95, "timing once more")
    after = calibrate(None, shapes=shapes, ranks=PP, quick=True)
    return AccuracyReport(tuple(rows), host, num_steps, drift(host, after))


def _shape(plan: Plan, sizes: Sequence[Size], name: str) -> Shape:
    model = next(size.model for size in sizes if size.name == name)
    return Shape(model, plan.train.seq, plan.train.microbatch, 2)


def _calibrate_undisturbed(
    path: Path, shapes: Sequence[Shape], quick: bool, progress: Callable[[float, str], None]
) -> HostProfile:
    """Calibrate once; again, up to a limit, while others take part of the cores. The calmest counts."""
    profiles: list[HostProfile] = []
    while len(profiles) < MAX_RUNS:
        wait_until_quiet(MAX_CALIBRATION_WAIT_S)
        profiles.append(calibrate(None, shapes=shapes, ranks=PP, quick=quick, progress=progress))
        if profiles[-1].host.others_share <= QUIET_SHARE:
            break
    host = min(profiles, key=lambda profile: profile.host.others_share)
    write_atomically(path, host.to_json())
    return host


def _run_undisturbed(case: Case, host: HostProfile, folder: Path, data: Path, num_steps: int) -> AccuracyRow:
    """Run once; again, up to a limit, while others take part of the cores. The quietest run counts."""
    rows: list[AccuracyRow] = []
    while len(rows) < MAX_RUNS:
        wait_until_quiet(MAX_WAIT_S)
        rows.append(_run(case, host, folder, data, num_steps))
        if rows[-1].others_share <= QUIET_SHARE:
            break
    return min(rows, key=lambda row: row.others_share)


def _run(case: Case, host: HostProfile, folder: Path, data: Path, num_steps: int) -> AccuracyRow:
    """Predict first; then execute the bytes of the same plan."""
    path, trace = folder / f"{case.name}.plan", folder / f"{case.name}.trace.tsv"
    write_atomically(path, write_plan(case.plan))
    predicted = replay(case.plan, resolve(case.plan, price_plan(case.plan, host))).summary().makespan_ns
    last = NUM_WARM_UP_STEPS + num_steps - 1
    options = RunOptions(
        steps=last + 1, trace=trace, trace_steps=(NUM_WARM_UP_STEPS, last), verify_data=False
    )
    meter = LoadMeter()
    run_plan(path, data, options)
    others_share = meter.others_share()
    traced = read_trace(trace)
    steps = sorted(traced.of_step(step).summary().makespan_ns for step in traced.steps)
    tenth = len(steps) // 10
    return AccuracyRow(
        size=case.size,
        schedule=case.schedule,
        num_microbatches=case.num_microbatches,
        predicted_ns=predicted,
        measured_ns=median_low(steps),
        low_ns=steps[tenth],
        high_ns=steps[-1 - tenth],
        others_share=round(others_share, 4),
    )


def drift(before: HostProfile, after: HostProfile) -> float:
    """Median change of the passes' times between two calibrations of the same shapes, as a share."""

    def keyed(profile: HostProfile) -> Mapping[tuple[object, ...], int]:
        return {_key(entry): entry.ns for entry in profile.passes if entry.part == "layer"}

    first, second = keyed(before), keyed(after)
    return median(second[key] / ns for key, ns in first.items() if key in second) - 1


def _key(entry: PassSample) -> tuple[object, ...]:
    return (entry.kind, entry.step, entry.hidden, entry.ffn, entry.seq, entry.microbatch)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b: 1 where both sequences order alike, -1 where inversely; ties count for neither.

    Examples
    --------
    >>> kendall_tau([1, 2, 3], [10, 20, 30]), kendall_tau([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    """
    pairs = [(_sign(x - y), _sign(u - v)) for (x, u), (y, v) in combinations(zip(a, b, strict=True), 2)]
    agreement = sum(one * other for one, other in pairs)
    num_a = sum(one != 0 for one, _ in pairs)
    num_b = sum(other != 0 for _, other in pairs)
    return agreement / sqrt(num_a * num_b) if num_a and num_b else 0.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _tell_nobody(_share: float, _what: str) -> None:
    """No one wants to know how far it is."""
