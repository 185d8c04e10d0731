"""Choose the best plan for a scenario, say why, and write it as one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap import __version__
from exactmap.errors import InvalidInputError, Place
from exactmap.files import write_atomically
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.host import read_host_profile
from exactmap.sim.plan.plan import Precision
from exactmap.sim.plan.reader import sha256_of
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.planner.candidate import SearchSpace, divisors
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimator
from exactmap.sim.planner.explain import family_bests, rejection_counts, step_parts
from exactmap.sim.planner.host_pricing import HostPricing
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.planner.search import Progress, Ranking, search
from exactmap.sim.planner.sensitivity import Shift, sensitivity
from exactmap.sim.scenario.scenario import Scenario, load_scenario
from exactmap.sim.scenario.types import Engine
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.verbs.input_kind import InputKind, refuse_others
from exactmap.sim.workload.plain import require_plain

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.planner.pricing import Pricing

__all__ = ["PlanOutcome", "plan", "space_of"]

MAX_AUTO_TP = 64
MAX_AUTO_PP = 128
MAX_AUTO_MICROBATCH = 16

PLAN_TYPES = {
    "fp32": Precision("f32", "f32", "f32", "f32", "f32"),
    "bf16": Precision("bf16", "f32", "bf16", "bf16", "f32"),
    "fp8": Precision("bf16", "f32", "bf16", "bf16", "f32"),
}


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """The chosen plan, its bytes and hash, the search behind it, and the scenario."""

    scenario: Scenario
    ranking: Ranking
    plan: Plan
    content: bytes
    sha256: str
    path: Path | None
    shifts: tuple[Shift, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The outcome as a JSON-ready document."""
        found = self.ranking.survey.front
        return {
            "schema_version": 1,
            "kind": "plan",
            "scenario": str(self.scenario.path),
            "path": None if self.path is None else str(self.path),
            "plan_sha256": self.sha256,
            "num_bytes": len(self.content),
            "num_candidates": self.ranking.num_candidates,
            "num_unseen": self.ranking.survey.num_unseen,
            "gap": self.ranking.gap,
            "finalists": [
                {
                    **asdict(finalist.candidate),
                    "num_gpus": finalist.candidate.num_gpus,
                    "step_time_ns": finalist.step_ns,
                    "bubble": finalist.summary.bubble,
                    "peak_bytes": finalist.peak_bytes,
                    **asdict(step_parts(finalist)),
                }
                for finalist in self.ranking.finalists
            ],
            "lost": [
                {
                    "choices": list(lost.choices),
                    "best": None if lost.best is None else lost.best.candidate.label,
                    "slower": None if lost.best is None else lost.slower,
                    "why": lost.why,
                }
                for lost in family_bests(self.ranking)
            ],
            "rejected": [asdict(count) for count in rejection_counts(self.ranking)],
            "front": None
            if found is None
            else [
                {
                    "layout": point.candidate.label,
                    "step_time_ns": round(point.step_ns),
                    "num_gpus": point.num_gpus,
                    "memory_bytes": round(point.memory_bytes),
                }
                for point in found.points
            ],
            "sensitivity": [{**asdict(shift), "best": shift.best.label} for shift in self.shifts],
        }


def plan(
    scenario: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    pricing: Pricing | None = None,
    host: str | Path | None = None,
    num_finalists: int = 4,
    budget_s: float | None = None,
    sensitive: bool = False,
    front: bool = False,
    progress: Progress | None = None,
) -> PlanOutcome:
    """Search the candidates of a scenario and write the best plan.

    Parameters
    ----------
    scenario
        Its file.
    overrides
        ``a.b=c``, in order.
    out
        Where to write the plan; None: nowhere.
    pricing
        Another model of the machine than the scenario's cluster gives.
    host
        What `calibrate` measured on this host, for a cluster that runs on CPUs.
    num_finalists
        How many candidates are lowered, checked and simulated.
    budget_s
        Seconds to search for; the best plan so far is then taken, and `Ranking.gap` bounds what was missed.
        None: until done.
    sensitive
        Whether the winner is also tried on machines with other networks and memory.
    front
        Whether the Pareto front over step time, GPUs and memory is kept; every number of replicas that fits
        is then tried, unless the scenario names some.
    progress
        Told how far the search is.

    Raises
    ------
    InvalidInputError
        If the scenario is wrong.
    InfeasibleError
        If nothing fits, or no plan can hold the model.
    """
    refuse_others(scenario, "a scenario", InputKind.SCENARIO)
    loaded = load_scenario(scenario, overrides)
    require_plain(loaded.model, Place(loaded.path, field="model"))
    formats = find_formats(loaded.training.precision)
    machine = pricing or _pricing_of(loaded, host)
    estimator = Estimator(
        loaded.model,
        loaded.training.sequence,
        formats,
        machine,
        loaded.memory_budget_bytes,
        loaded.cluster.map_request.order,
    )
    numbers = loaded.training.optimizer
    optimizer = OptimizerSettings(
        lr=numbers.lr,
        lr_min=numbers.min_lr,
        warmup=numbers.warmup_steps,
        steps=loaded.training.steps,
        beta1=numbers.beta1,
        beta2=numbers.beta2,
        eps=numbers.eps,
        decay=numbers.weight_decay,
        clip=numbers.clip,
        seed=loaded.training.seed,
    )
    made = (
        ("generator", "exactmap"),
        ("version", __version__),
        ("scenario", _word(loaded.name)),
        ("priced_with", _word(machine.basis)),
        ("peak_flop_per_s", f"{machine.peak_flop_per_s:.0f}"),
        *(() if machine.band is None else (("band", f"{machine.band[0]:.4f},{machine.band[1]:.4f}"),)),
    )
    space = space_of(loaded)
    if front:
        space = replace(space, all_replicas=True)
    ranking = search(
        space,
        estimator,
        optimizer=optimizer,
        precision=PLAN_TYPES[loaded.training.precision],
        made=made,
        num_finalists=num_finalists,
        budget_s=budget_s,
        with_front=front,
        progress=progress,
    )
    chosen = ranking.winner.plan
    content = write_plan(chosen)
    path = None if out is None else Path(out)
    if path is not None:
        write_atomically(path, content)
    shifts: tuple[Shift, ...] = ()
    if sensitive:
        shifts = sensitivity(
            space, estimator, ranking.winner.candidate, lambda what: progress(1.0, what) if progress else None
        )
    return PlanOutcome(loaded, ranking, chosen, content, sha256_of(content), path, shifts)


def space_of(scenario: Scenario) -> SearchSpace:
    """What a scenario lets the search choose; `auto` becomes what makes sense for its model and machine."""
    model, parallel, cluster = scenario.model, scenario.parallel, scenario.cluster
    num_gpus = scenario.max_gpus
    domain = min(cluster.used_per_domain, MAX_AUTO_TP, num_gpus)
    schedules = parallel.schedule or CLOSED_FORMS
    return SearchSpace(
        tp=parallel.tp or tuple(value for value in divisors(model.heads) if value <= domain),
        cp=parallel.cp or (1, 2, 4, 8),
        pp=parallel.pp
        or tuple(value for value in divisors(model.layers) if value <= min(MAX_AUTO_PP, num_gpus)),
        chunks=parallel.chunks or (1, 2, 3, 4, 6, 8),
        microbatch=parallel.microbatch
        or tuple(
            2**power
            for power in range(MAX_AUTO_MICROBATCH.bit_length())
            if 2**power <= scenario.training.batch_sequences
        ),
        schedules=schedules,
        num_gpus=num_gpus,
        global_batch=scenario.training.batch_sequences,
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        seq=scenario.training.sequence,
        dp=parallel.replicas,
        all_replicas=parallel.dp == "all",
        zero=parallel.zero or ((0, 1) if scenario.execution is None else (0,)),
    )


def _pricing_of(scenario: Scenario, host: str | Path | None) -> Pricing:
    if host is not None:
        if scenario.execution is not Engine.CPU:
            raise InvalidInputError(
                "a hardware profile of this host prices plans of this host alone",
                where=str(scenario.path),
                got=f"a plan for {scenario.cluster.name}",
                expected="a scenario with execution.engine cpu",
            )
        return HostPricing(read_host_profile(host))
    return ClusterPricing(scenario.cluster, find_formats(scenario.training.precision))


def _word(text: str) -> str:
    """Information lines hold printable words without spaces."""
    return "".join(char if "!" <= char <= "~" else "_" for char in text) or "-"
