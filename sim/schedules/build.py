"""Build a whole plan from plain numbers: model, schedule, mesh, microbatches, optimizer.

The same function makes the exact f32 plan that the C engine runs on CPUs and the estimate of a GPU cluster,
with narrower types and tensor and context parallelism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.plan.plan import MeshDims, Plan, PlanModel, PlanTrain, Precision
from exactmap.sim.schedules.lowering import lower
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.sizes import size_stage
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.workload.model import ModelConfig

__all__ = ["OptimizerSettings", "build_plan", "plan_model"]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW with warm-up and cosine decay, as the ``train`` line of a plan says it.

    Parameters
    ----------
    lr, lr_min
        Learning rate after the warm-up and at the end of the cosine.
    warmup, steps
        Steps of the warm-up, and of the whole run.
    beta1, beta2, eps
        Of Adam's two moments.
    decay
        Decoupled weight decay, on matrices.
    clip
        Largest norm of the gradient, 0: no limit.
    seed
        Of the first weights and of the order of the data.

    Raises
    ------
    InvalidInputError
        If a number is out of its range.
    """

    lr: float = 3e-4
    lr_min: float = 3e-5
    warmup: int = 100
    steps: int = 1000
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what a plan cannot say."""
        numbers: dict[str, float] = asdict(self)
        for name, value in numbers.items():
            if not 0 <= value < float("inf"):
                raise _wrong_number(name, value, "a finite number of at least 0")
        for name in ("beta1", "beta2"):
            if numbers[name] >= 1:
                raise _wrong_number(name, numbers[name], "less than 1")
        if self.steps < 1:
            raise _wrong_number("steps", self.steps, "at least 1")


def _wrong_number(name: str, got: float, expected: str) -> InvalidInputError:
    return InvalidInputError(
        "the optimizer cannot work so", where=Place(field=name), got=str(got), expected=expected
    )


def build_plan(
    model: ModelConfig,
    *,
    schedule: str,
    pp: int,
    num_microbatches: int,
    seq: int,
    microbatch: int = 1,
    chunks: int = 1,
    dp: int = 1,
    tp: int = 1,
    cp: int = 1,
    ep: int = 1,
    mesh_order: tuple[str, ...] = ("tp", "cp", "ep", "pp", "dp"),
    layers: Sequence[int] | None = None,
    embedding_layers: float = 0.0,
    head_layers: float = 0.0,
    optimizer: OptimizerSettings | None = None,
    precision: Precision | None = None,
    slices: int = 1,
    group_size: int = 0,
    stash_limit: int = 0,
    shard_params: bool = False,
    split_buckets: bool = False,
    clock: str = "barrier",
    late_norm: bool = False,
    times: WorkTimes | None = None,
    depth: int = 0,
    look_ahead: int = 1,
    budget_bytes: int = -1,
    made: tuple[tuple[str, str], ...] = (),
    cost: tuple[tuple[str, int], ...] = (),
    pred: tuple[tuple[str, str], ...] = (),
) -> Plan:
    """Build the plan of one training step.

    Parameters
    ----------
    model
        The model's shape.
    schedule
        Name in `SCHEDULES`.
    pp, chunks
        Pipeline ranks, and stages on each.
    num_microbatches, microbatch, seq
        Microbatches per step and replica, sequences in each, tokens in a sequence.
    dp, tp, cp, ep, mesh_order
        Sizes of the other mesh axes; all axes, fastest first.
    layers
        Layers of each stage; balanced if left out.
    embedding_layers, head_layers
        What embedding and head cost, in layers, for the balance.
    optimizer
        Numbers of the optimizer.
    precision
        Data types; f32 throughout if left out.
    slices
        Slices that sequences are cut into along their tokens.
    group_size
        Wanted size of a group of microbatches, where the schedule groups them; 0: its own choice.
    stash_limit
        Stash that a rank may hold, in microbatches of its layers, for schedules that keep to one; 0: any.
    shard_params, split_buckets, clock, late_norm
        As in `lower`.
    times
        Durations by which posts and waits are placed. If left out, passes take as long as their stage has
        layers, embedding and head included.
    depth, look_ahead, budget_bytes, cost, pred
        As in `lower`.
    made
        Information for the ``made`` line, after the schedule's.

    Returns
    -------
    Plan
        A plan that passes every check.

    Raises
    ------
    InvalidInputError
        If the numbers do not fit each other.
    InfeasibleError
        If a rank needs more than `budget_bytes`.

    Examples
    --------
    >>> from exactmap.sim.workload.model import ModelKind
    >>> tiny = ModelConfig(
    ...     ModelKind.GPT,
    ...     layers=4,
    ...     hidden=32,
    ...     heads=2,
    ...     kv_heads=2,
    ...     head_dim=16,
    ...     ffn=64,
    ...     vocab=259,
    ...     positions=64,
    ...     tied=False,
    ... )
    >>> plan = build_plan(tiny, schedule="1f1b", pp=2, num_microbatches=4, seq=32)
    >>> [program.name for program in plan.programs]
    ['P0', 'P1']
    """
    mesh = MeshDims(tp, cp, ep, pp, dp, mesh_order)
    _check_mesh(mesh)
    order = make_order(
        schedule,
        pp,
        num_microbatches,
        chunks,
        num_slices=slices,
        group_size=group_size,
        stash_limit=stash_limit,
        times=times,
    )
    if layers is None:
        layers = balance_layers(
            model.layers, order.num_stages, embedding_layers, head_layers, placement=order.placement
        )
    if len(layers) != order.num_stages or sum(layers) != model.layers:
        raise InvalidInputError(
            "the stages do not hold the model's layers",
            got=f"{sum(layers)} layers in {len(layers)} stages",
            expected=f"{model.layers} layers in {order.num_stages} stages",
        )
    stages = stages_of(layers)
    precision = precision or Precision()
    # Stages of one shape have one size: a balanced cut has few shapes.
    shapes = {(stage.num_layers, stage.embedding, stage.head): stage for stage in stages}
    sizes = {
        shape: size_stage(model, stage, microbatch, seq, precision, tp=tp, cp=cp, slices=slices)
        for shape, stage in shapes.items()
    }
    numbers = optimizer or OptimizerSettings()
    train = PlanTrain(
        microbatch=microbatch,
        m=num_microbatches,
        seq=seq,
        slices=slices,
        optimizer="adamw",
        lr=numbers.lr,
        lr_min=numbers.lr_min,
        warmup=numbers.warmup,
        steps=numbers.steps,
        beta1=numbers.beta1,
        beta2=numbers.beta2,
        eps=numbers.eps,
        decay=numbers.decay,
        clip=numbers.clip,
        seed=numbers.seed,
    )
    return lower(
        order,
        model=plan_model(model),
        train=train,
        mesh=mesh,
        stages=stages,
        sizes=[sizes[stage.num_layers, stage.embedding, stage.head] for stage in stages],
        precision=precision,
        clock=clock,
        late_norm=late_norm,
        shard_params=shard_params,
        split_buckets=split_buckets,
        times=times or _times_by_layers(layers, embedding_layers, head_layers),
        depth=depth,
        look_ahead=look_ahead,
        budget_bytes=budget_bytes,
        made=(("schedule", schedule), ("chunks", str(chunks)), *made),
        cost=cost,
        pred=pred,
    )


def plan_model(model: ModelConfig) -> PlanModel:
    """The ``model`` line of a plan."""
    return PlanModel(
        kind=model.kind.value,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        positions=model.positions,
        tied=model.tied,
        eps=model.norm_eps,
        theta=model.rope_theta,
    )


def _check_mesh(mesh: MeshDims) -> None:
    for name in ("tp", "cp", "ep", "pp", "dp"):
        size: int = getattr(mesh, name)
        if size < 1:
            raise InvalidInputError(
                "an axis of the mesh is empty", where=Place(field=name), got=str(size), expected="at least 1"
            )
    if sorted(mesh.order) != ["cp", "dp", "ep", "pp", "tp"]:
        raise InvalidInputError(
            "the mesh order names each axis once",
            where=Place(field="mesh_order"),
            got=",".join(mesh.order),
            expected="tp, cp, ep, pp and dp, fastest first",
        )


def _times_by_layers(layers: Sequence[int], embedding_layers: float, head_layers: float) -> WorkTimes:
    """F, I and W of a stage take a microsecond per layer."""
    weights = [float(count) for count in layers]
    weights[0] += embedding_layers
    weights[-1] += head_layers
    return WorkTimes({(op, s): round(1000 * weight) for op in "FIW" for s, weight in enumerate(weights)})
