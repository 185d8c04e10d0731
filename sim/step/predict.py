"""Time of one training step in closed form: layers, stages, pipeline, gradients, optimizer, host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import exp

from exactmap.sim.cost.groups import collective_ns, strided_group
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.workload.layer_work import head_work, layer_work
from exactmap.sim.workload.model import LayerKind

__all__ = ["StepPrediction", "predict_step"]

_INTERVAL_SIGMAS = 1.2816
"""Of a normal distribution 80 % lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """A step's predicted time.

    Parameters
    ----------
    step_ns, low_ns, high_ns
        Time of a step, and the ends of the 80 % interval.
    parts_ns
        What it is made of; the parts sum to `step_ns`.
    memory_bytes
        Peak of the fullest rank; 0 if not priced.
    warnings
        Where the case lies outside what was checked.
    """

    step_ns: float
    low_ns: float
    high_ns: float
    parts_ns: dict[str, float] = field(default_factory=dict)
    memory_bytes: float = 0.0
    warnings: tuple[str, ...] = ()


class _Stepper:
    """Prices one setup."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup
        self.layers = LayerClock(setup)
        self.clock = self.layers.clock

    def run(self) -> StepPrediction:
        """Price the step."""
        setup = self.setup
        split, batch, model = setup.split, setup.batch, setup.model
        args = (split, batch, setup.precision, setup.software)
        kinds = model.layer_kinds()
        priced = {kind: self.layers.price(layer_work(model, kind, *args)) for kind in set(kinds)}
        head = self.layers.price(head_work(model, *args))
        stages = self._stages(kinds)
        times = []
        for number, stage in enumerate(stages):
            time = sum(priced[kind].total_ns for kind in stage)
            if number == len(stages) - 1:
                time += head.total_ns
            times.append(time)
        busiest = max(times)
        m = batch.num_microbatches
        others = (sum(times) - busiest) / split.chunks
        hop = self._hop_ns()
        passes = m * busiest
        parts: Counter[str] = Counter()
        chosen = times.index(busiest)
        for kind, count in Counter(stages[chosen]).items():
            for name, time in priced[kind].parts_ns.items():
                parts[name] += m * count * time
        if chosen == len(stages) - 1:
            for name, time in head.parts_ns.items():
                parts[name] += m * time
        parts["bubble"] += others
        parts["pipeline hops"] += (
            2 * hop * (split.pp * split.chunks - 1 + (m - 1) * 0.5) if split.pp > 1 else 0.0
        )
        parts["data parallel"] += self._data_parallel_ns(passes)
        parts["optimizer"] += 0.0 if setup.no_optimizer else self._optimizer_ns()
        parts["step overhead"] += 0.0 if setup.no_optimizer else self.clock.release.step_ns
        total = float(sum(parts.values()))
        width = exp(_INTERVAL_SIGMAS * self.clock.hardware.scatter)
        return StepPrediction(total, total / width, total * width, dict(parts))

    def _stages(self, kinds: tuple[LayerKind, ...]) -> list[tuple[LayerKind, ...]]:
        """Layers of each pipeline rank."""
        pp, layers = self.setup.split.pp, len(kinds)
        counts = self.setup.stage_layers or tuple(
            layers * (rank + 1) // pp - layers * rank // pp for rank in range(pp)
        )
        out, first = [], 0
        for count in counts:
            out.append(kinds[first : first + count])
            first += count
        return out

    def _hop_ns(self) -> float:
        setup = self.setup
        split = setup.split
        if split.pp == 1:
            return 0.0
        tokens = setup.batch.microbatch * setup.batch.seq / split.cp
        size = (
            tokens
            * setup.model.hidden
            * setup.precision.act_bytes
            / (split.tp if split.sequence_parallel else 1)
        )
        inside = split.num_ranks // split.pp < setup.cluster.used_per_domain
        scale = setup.cluster.scale_up if inside else setup.cluster.scale_out
        return scale.latency_ns + size * 1e9 / (scale.bytes_per_s * scale.efficiency)

    def _parameters(self) -> float:
        """Parameters of the fullest rank."""
        split, model = self.setup.split, self.setup.model
        return model.num_parameters() / (split.tp * split.pp)

    def _data_parallel_ns(self, passes_ns: float) -> float:
        setup = self.setup
        split, precision, release = setup.split, setup.precision, self.clock.release
        ranks = split.data_ranks
        if ranks == 1:
            return 0.0
        group = strided_group(setup.cluster, ranks, split.tp)
        parameters = self._parameters()
        if split.zero == 0:
            reduce = collective_ns(setup.cluster, "all_reduce", group, parameters * precision.reduce_bytes)
            gather = 0.0
        else:
            reduce = collective_ns(
                setup.cluster, "reduce_scatter", group, parameters * precision.reduce_bytes
            )
            gather = collective_ns(setup.cluster, "all_gather", group, parameters * precision.gather_bytes)
        if split.zero == 3:
            gather *= 2 * setup.batch.num_microbatches
            reduce *= setup.batch.num_microbatches
        hidden = passes_ns
        exposed = 0.0
        for time, overlap, share in (
            (reduce, setup.software.overlap_grad, release.exposed_grad),
            (gather, setup.software.overlap_param, release.exposed_param),
        ):
            exposed += max(time * share, time - hidden / 2) if overlap else time
        return exposed

    def _optimizer_ns(self) -> float:
        setup = self.setup
        precision = setup.precision
        shards = setup.split.data_ranks if setup.split.zero else 1
        moved = self._parameters() / shards * (precision.grad_bytes + 2 * (4 + 8) + precision.param_bytes)
        gpu = setup.cluster.gpu
        return moved * 1e9 / (gpu.memory_bytes_per_s * self.clock.hardware.memory)


def predict_step(setup: TrainingSetup) -> StepPrediction:
    """Predict the time of one training step."""
    return _Stepper(setup).run()
