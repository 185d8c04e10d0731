"""The stages of a setup priced: passes, what they are made of, and parameters that each rank holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache

from exactmap.sim.cost.layers import LayerClock, LayerPrice
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.bubbles import StageTimes
from exactmap.sim.step.layout import StageLayout, lay_out, read_layout, stage_ranks
from exactmap.sim.step.pipeline import schedule_name
from exactmap.sim.workload.layer_work import head_work, layer_work, prediction_work
from exactmap.sim.workload.model import LayerKind, ModelConfig
from exactmap.sim.workload.operators import Pass

__all__ = ["Stage", "StagePlan", "layer_kinds", "price_stages"]


@dataclass(slots=True)
class Stage:
    """A stage; stages that hold alike are one object.

    Parameters
    ----------
    layers
        Prices of its layers and how many there are of each.
    head
        Price of the final norm, the head and the loss, and how often they are here.
    pass_ns
        Its passes for one microbatch.
    parts_ns
        What those are made of.
    dense, expert, embedding
        Elements that a rank holds: layers (and head, if it has a copy of its own) outside and inside the
        experts; token embedding.
    matrices
        Tensors that these lie in.
    frozen
        Elements that are not trained (LoRA).
    """

    layers: list[tuple[LayerPrice, int]]
    head: tuple[LayerPrice, int]
    pass_ns: dict[Pass, float] = field(default_factory=lambda: dict.fromkeys(Pass, 0.0))
    parts_ns: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    dense: float = 0.0
    expert: float = 0.0
    embedding: float = 0.0
    matrices: int = 0
    frozen: float = 0.0

    @property
    def forward_ns(self) -> float:
        """Forward of one microbatch."""
        return self.pass_ns[Pass.F]

    @property
    def backward_ns(self) -> float:
        """Backward of one microbatch."""
        return self.pass_ns[Pass.I] + self.pass_ns[Pass.W]

    @property
    def parameters(self) -> float:
        """Elements that a rank holds of this stage."""
        return self.dense + self.expert + self.embedding

    def add(self, step: Pass, part: str, time_ns: float) -> None:
        """Make a pass longer."""
        if time_ns:
            self.pass_ns[step] += time_ns
            self.parts_ns[part] += time_ns


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The stages of a pipeline and where they lie.

    Parameters
    ----------
    schedule
        Its schedule, as `schedule_name` has it.
    stages, layouts, ranks_of
        Stages front to back; what each holds; ranks that hold it.
    held
        By rank: its stages front to back, with the share of microbatches that it sees.
    """

    schedule: str
    stages: tuple[Stage, ...]
    layouts: tuple[StageLayout, ...]
    ranks_of: tuple[tuple[int, ...], ...]
    held: tuple[tuple[tuple[Stage, float], ...], ...]

    def times(self) -> StageTimes:
        """Passes by stage."""
        return StageTimes(
            *([stage.pass_ns[step] for stage in self.stages] for step in (Pass.F, Pass.I, Pass.W))
        )


def price_stages(clock: LayerClock) -> StagePlan:
    """Lay the model out on stages and price each."""
    setup = clock.setup
    split, model = setup.split, setup.model
    schedule = schedule_name(setup.schedule, split.pp, split.chunks)
    kinds = layer_kinds(model)
    num = split.pp * (1 if schedule == "dualpipe" else split.chunks)
    if setup.layout:
        layouts = read_layout(setup.layout, len(kinds), num)
    else:
        layouts = lay_out(len(kinds), model.mtp_layers, num, split.pp, setup.stage_layers)
    args = (split, setup.batch, setup.precision, setup.software)
    priced = {kind: clock.price(layer_work(model, kind, *args)) for kind in set(kinds)}
    head = LayerPrice() if setup.layers_only else clock.price(head_work(model, *args))
    further: list[LayerPrice] = []
    if any(layout.mtp for layout in layouts):
        further = [clock.price(work) for work in prediction_work(model, *args)]
    known: dict[object, Stage] = {}
    stages = []
    for layout in layouts:
        span = kinds[layout.first : layout.last]
        key = (span, layout.embedding, layout.head, layout.mtp)
        same = known.get(key)
        if same is None:
            counts = [(priced[kind], count) for kind, count in Counter(span).items()]
            counts += [(price, layout.mtp) for price in further if layout.mtp]
            same = known[key] = _stage(setup, layout, counts, head)
        stages.append(same)
    ranks_of = stage_ranks(schedule, split.pp, num)
    held: list[list[tuple[Stage, float]]] = [[] for _ in range(split.pp)]
    for stage, ranks in zip(stages, ranks_of, strict=True):
        for rank in ranks:
            held[rank].append((stage, 1.0 / len(ranks)))
    return StagePlan(schedule, tuple(stages), layouts, ranks_of, tuple(map(tuple, held)))


def _stage(
    setup: TrainingSetup, layout: StageLayout, layers: list[tuple[LayerPrice, int]], head: LayerPrice
) -> Stage:
    stage = Stage(layers, (head, layout.head + layout.mtp))
    for price, count in (*layers, stage.head):
        if not count:
            continue
        for step, time in price.pass_ns.items():
            stage.pass_ns[step] += count * time
        for name, time in price.parts_ns.items():
            stage.parts_ns[name] += count * time
    repeated = layout.mtp - 1 if setup.model.mtp_repeated and layout.mtp else 0
    further = 1 + len(setup.model.mtp_kinds()) if layout.mtp else 0
    for number, (price, runs) in enumerate(layers):
        # Repeated predictions run the same weights again.
        count = runs - repeated if number >= len(layers) - further else runs
        stage.dense += count * price.weights
        stage.expert += count * price.expert_weights
        stage.matrices += count * price.matrices
        stage.frozen += count * price.frozen
    model = setup.model
    vocab = model.padded_vocab(setup.split.tp) // setup.split.tp * model.hidden
    if setup.software.adapter_rank:
        stage.frozen += vocab * (layout.embedding + bool(stage.head[1] and not model.tied))
        return stage
    stage.embedding = vocab * layout.embedding
    if stage.head[1] and not (model.tied and layout.embedding):
        # A tied head away from the embedding is a copy of it.
        stage.dense += vocab
    return stage


@lru_cache(maxsize=256)
def layer_kinds(model: ModelConfig) -> tuple[LayerKind, ...]:
    """Kind of each layer, as `ModelConfig.layer_kinds` has it, kept for the next setup of the model."""
    return model.layer_kinds()
