"""Where the time of a training step goes, what bounds it, and what one notch of each knob would change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exactmap.errors import ExactmapError, InvalidInputError
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.communication import AxisTime, communication
from exactmap.sim.step.notch_prices import NotchPrice, price_notches
from exactmap.sim.step.notches import Notch
from exactmap.sim.step.operators import OperatorTime, operator_times
from exactmap.sim.step.parts import group_of, grouped_ns
from exactmap.sim.step.predict import StepPrediction, predict_step
from exactmap.sim.step.rank_work import model_flop_per_gpu, rank_work
from exactmap.sim.step.stages import price_stages
from exactmap.sim.step.what_if import Freed, free_resources
from exactmap.sim.verbs.explain_input import Subject, find_subject
from exactmap.sim.workload.operators import Pass

__all__ = ["ExplainReport", "explain", "layout_of"]


@dataclass(frozen=True, slots=True)
class ExplainReport:
    """A step taken apart.

    Parameters
    ----------
    subject
        What was asked about.
    prediction
        Its step.
    operators
        Compute of the busiest pipeline rank, the longest first.
    axes
        Communication, the innermost axis first.
    freed
        The step with each resource free, what bounds it first.
    notches, impossible
        Neighbours of the setup, the largest gain first; those that there are not.
    model_flop_per_gpu
        Model FLOPs of a GPU in a step.
    """

    subject: Subject
    prediction: StepPrediction
    operators: tuple[OperatorTime, ...]
    axes: tuple[AxisTime, ...]
    freed: tuple[Freed, ...]
    notches: tuple[NotchPrice, ...]
    impossible: tuple[Notch, ...]
    model_flop_per_gpu: float

    @property
    def setup(self) -> TrainingSetup:
        """What is trained."""
        return self.subject.setup

    @property
    def peak_flop_per_s(self) -> int:
        """Dense peak of a GPU in the number format of the products."""
        compute = self.setup.precision.compute
        return self.setup.cluster.gpu.peak("bf16" if compute == "fp16" else compute)

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilisation (MFU)."""
        return self.model_flop_per_gpu * 1e9 / self.prediction.step_ns / self.peak_flop_per_s

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Tokens of a step over its time and the GPUs."""
        setup = self.setup
        tokens = setup.batch.rank_tokens * setup.split.dp
        return tokens * 1e9 / self.prediction.step_ns / setup.split.num_ranks

    @property
    def fits(self) -> bool:
        """Whether the fullest rank has the memory."""
        return self.prediction.memory_bytes <= self.subject.limit_bytes

    @property
    def pass_ns(self) -> dict[str, float]:
        """Compute by pass: forward, input and weight gradients, computed again, and what has no pass."""
        names = {"forward": Pass.F, "input": Pass.I, "weight": Pass.W}
        operators = self.operators
        return {
            **{name: sum(each.pass_ns.get(step, 0.0) for each in operators) for name, step in names.items()},
            "again": sum(each.again_ns for each in operators),
            "other": sum(each.other_ns for each in operators),
        }

    def to_dict(self) -> dict[str, object]:
        """The report as plain data."""
        prediction, setup = self.prediction, self.setup
        memory = prediction.memory
        assert memory is not None
        return {
            "schema_version": 1,
            "kind": "explain",
            "source": self.subject.source,
            "name": self.subject.name,
            "model": setup.model.name,
            "gpu": setup.cluster.gpu.name,
            "num_gpus": setup.split.num_ranks,
            "layout": layout_of(setup),
            "step_ns": prediction.step_ns,
            "low_ns": prediction.low_ns,
            "high_ns": prediction.high_ns,
            "measured_ns": self.subject.measured_ns,
            "model_flop_per_gpu": self.model_flop_per_gpu,
            "peak_flop_per_s": self.peak_flop_per_s,
            "utilisation": self.utilisation,
            "tokens_per_s_per_gpu": self.tokens_per_s_per_gpu,
            "group_ns": {group.value: time for group, time in grouped_ns(prediction.parts_ns).items()},
            "parts": [
                {"part": name, "group": group_of(name).value, "time_ns": time, "share": _share(self, time)}
                for name, time in prediction.parts_ns.items()
            ],
            "pass_ns": self.pass_ns,
            "busiest_rank": prediction.busiest,
            "operators": [_operator(each) for each in self.operators],
            "communication": [_axis(each) for each in self.axes],
            "bound": self.freed[0].resource.value,
            "resources": [
                {
                    "resource": each.resource.value,
                    "step_ns": each.step_ns,
                    "saved_ns": each.saved_ns,
                    "share": _share(self, each.saved_ns),
                }
                for each in self.freed
            ],
            "notches": [
                {
                    "knob": each.notch.knob,
                    "old": each.notch.old,
                    "new": each.notch.new,
                    "step_ns": each.step_ns,
                    "change": each.change,
                    "memory_bytes": each.memory_bytes,
                    "fits": each.fits,
                    "layout": layout_of(each.notch.setup) if each.notch.setup else None,
                }
                for each in self.notches
            ],
            "impossible": [
                {"knob": each.knob, "old": each.old, "new": each.new, "why": each.why}
                for each in self.impossible
            ],
            "memory": {
                "peak_bytes": memory.peak_bytes,
                "limit_bytes": self.subject.limit_bytes,
                "fits": self.fits,
                "rank": memory.rank,
                "moment": memory.moment,
                "categories": [
                    {"category": name, "num_bytes": size} for name, size in memory.parts_bytes.items()
                ],
            },
            "warnings": list(prediction.warnings),
            "assumed": list(setup.assumed),
        }


def _share(report: ExplainReport, time_ns: float) -> float:
    return time_ns / report.prediction.step_ns


def _operator(each: OperatorTime) -> dict[str, object]:
    return {
        "operator": each.name,
        "forward_ns": each.pass_ns.get(Pass.F, 0.0),
        "input_ns": each.pass_ns.get(Pass.I, 0.0),
        "weight_ns": each.pass_ns.get(Pass.W, 0.0),
        "again_ns": each.again_ns,
        "other_ns": each.other_ns,
        "total_ns": each.total_ns,
        "flop": each.flop,
        "num_bytes": each.num_bytes,
        "flop_per_s": each.flop_per_s,
        "share_of_peak": each.share_of_peak,
        "bound": each.bound or None,
    }


def _axis(each: AxisTime) -> dict[str, object]:
    return {
        "axis": each.axis,
        "tier": each.tier,
        "ranks": each.ranks,
        "per_domain": each.per_domain,
        "fabric_tier": each.fabric_tier,
        "num_bytes": each.num_bytes,
        "fabric_bytes": each.fabric_bytes,
        "total_ns": each.total_ns,
        "exposed_ns": each.exposed_ns,
        "again_ns": each.again_ns,
        "hidden_ns": each.hidden_ns,
        "bytes_per_s": each.bytes_per_s,
    }


def layout_of(setup: TrainingSetup) -> dict[str, object]:
    """How a training is cut and run, as plain data."""
    split, batch = setup.split, setup.batch
    return {
        "tp": split.tp,
        "cp": split.cp,
        "pp": split.pp,
        "dp": split.dp,
        "ep": split.ep,
        "etp": split.etp,
        "vpp": split.chunks,
        "microbatch": batch.microbatch,
        "num_microbatches": batch.num_microbatches,
        "sequence": batch.seq,
        "schedule": setup.schedule,
        "zero": split.zero,
        "sequence_parallel": split.sequence_parallel,
        "precision": setup.precision.compute,
        "recompute": setup.recompute.kind,
        "software": setup.software.family,
        "release": setup.software.release or None,
    }


def explain(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    id: str | None = None,  # noqa: A002 - the column's name
    row: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> ExplainReport:
    """Explain one training step.

    Parameters
    ----------
    source
        A CSV table in the layout of the published runs (docs/reference/rows.md); ``published``, the table
        that comes with exactmap; or a scenario, whose best plan is taken.
    overrides
        Of a scenario: ``a.b=c``, in order.
    id, row
        Which row of a table: its ``id``, or its number from 1. A table of one row needs neither.
    progress
        Told how far the search for a scenario's plan is.

    Returns
    -------
    ExplainReport
        Parts, operators, communication, resources, notches, memory.

    Raises
    ------
    InvalidInputError
        If there is no such table, scenario or row, or no price for it.
    InfeasibleError
        If nothing of a scenario fits.
    """
    subject = find_subject(source, overrides, id=id, row=row, progress=progress)
    try:
        return _taken_apart(subject)
    except (ArithmeticError, RecursionError) as error:
        raise InvalidInputError(
            "sizes beyond what can be priced", where=subject.name, got=type(error).__name__
        ) from None
    except ExactmapError as error:
        raise InvalidInputError(
            f"{subject.name} is refused", where=subject.source, problems=[error]
        ) from None


def _taken_apart(subject: Subject) -> ExplainReport:
    setup = subject.setup
    prediction = predict_step(setup)
    stages = price_stages(LayerClock(setup))
    work = rank_work(setup, stages, prediction.busiest)
    priced, refused = price_notches(setup, prediction, subject.limit_bytes)
    return ExplainReport(
        subject,
        prediction,
        operator_times(setup, work, prediction),
        communication(setup, stages, work, prediction),
        free_resources(setup, prediction),
        priced,
        refused,
        model_flop_per_gpu(setup, stages),
    )
