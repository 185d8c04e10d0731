"""Predict one step: a plan priced by a profile, through the replay or the event engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.files import read_bytes, write_atomically
from exactmap.sim.cost.cost_lines import profile_from_cost_lines
from exactmap.sim.cost.profile import Mover, Profile
from exactmap.sim.plan.check import load_plan
from exactmap.sim.report.result import StepResult
from exactmap.sim.verbs.folders import make_folder
from exactmap.sim.verbs.input_kind import InputKind, refuse_others

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.link_use import LinkUse
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.planner.search import Progress
    from exactmap.sim.verbs.link_sharing import LinkSharing
    from exactmap.topology.hardware import Cluster

__all__ = ["ENGINES", "Simulation", "predict", "simulate"]

ENGINES = ("replay", "events")
MAX_PROFILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Simulation:
    """A prediction with what it was made from; `files` are those that were written.

    `links` is what sharing links has cost, where they were shared.
    """

    plan: Plan
    trace: Trace
    result: StepResult
    files: tuple[Path, ...] = ()
    links: LinkUse | None = None

    def to_dict(self) -> dict[str, object]:
        """The prediction as a JSON-ready document."""
        return self.result.to_dict() | {"files": [str(path) for path in self.files]}


def simulate(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    engine: str = "replay",
    profile: str | Path | None = None,
    host: str | Path | None = None,
    mover: str | None = None,
    links: bool = False,
    cluster: str | Path | None = None,
    spread: str = "spray",
    link_seed: int = 0,
    paths: int = 1,
    out: str | Path | None = None,
    pictures: bool = True,
    progress: Progress | None = None,
) -> Simulation:
    """Predict the step time of a plan, or of the plan that `plan` chooses for a scenario.

    Parameters
    ----------
    path
        A plan file, or a scenario.
    overrides
        ``a.b=c``, for a scenario.
    engine
        ``replay`` (fast) or ``events`` (a discrete-event simulation); they agree to the nanosecond.
    profile
        Durations as a JSON file; left out: the plan's own cost lines.
    host
        What `calibrate` measured on a host: the plan is priced with it, instead of a profile.
    mover
        ``engine`` or ``inline``, instead of the profile's.
    links
        Whether transfers share the links of the cluster's fabric (engine ``events``).
    cluster
        For a plan with shared links: a name of the catalog, a cluster file, or a scenario.
    spread, link_seed, paths
        How flows choose among equal paths: ``ecmp`` or ``spray``; seed of ECMP; paths that a flow is
        striped over.
    out
        Folder for ``prediction.json``, ``trace.tsv``, and the pictures.
    pictures
        Whether to draw.
    progress
        Told how far the search is, for a scenario.

    Raises
    ------
    PlanError
        If the plan is refused.
    InvalidInputError
        If a duration is missing or an argument is unknown.
    """
    if engine not in ENGINES:
        raise InvalidInputError("unknown engine", got=repr(engine), expected=" or ".join(ENGINES))
    if mover is not None and mover not in list(Mover):
        raise InvalidInputError("unknown mover", got=repr(mover), expected=" or ".join(Mover))
    if profile is not None and host is not None:
        raise InvalidInputError("two prices for one plan", got=f"profile {profile} and host {host}")
    if links and engine != "events":
        raise InvalidInputError(
            "links are shared by the event engine alone", got=f"engine {engine}", expected="engine events"
        )
    if links and host is not None:
        raise InvalidInputError("a host has no fabric to share", got=f"host {host}")
    if cluster is not None and not links:
        raise InvalidInputError(
            "a cluster is asked for where links are shared", got=str(cluster), hint="add --links"
        )
    machine: Cluster | None = None
    kind = refuse_others(path, "a plan or a scenario", InputKind.PLAN, InputKind.SCENARIO)
    if kind is InputKind.PLAN or Path(path).suffix == ".plan":
        if overrides:
            raise InvalidInputError("overrides are for scenarios", where=str(path), got=" ".join(overrides))
        if links and cluster is None:
            raise InvalidInputError(
                "a plan does not say whose links are shared",
                where=str(path),
                expected="--cluster, a name of the catalog or a file",
            )
        plan, sha256 = load_plan(path)
        shown_path = str(path)
        if cluster is not None:
            from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster

            machine = load_mapped_cluster(cluster)
    else:
        from exactmap.sim.verbs.plan import plan as choose

        if cluster is not None:
            raise InvalidInputError(
                "a scenario has a cluster of its own", where=str(path), got=f"cluster {cluster}"
            )
        chosen = choose(path, overrides, host=host, progress=progress)
        plan, sha256, shown_path = chosen.plan, chosen.sha256, f"(chosen for {path})"
        machine = chosen.scenario.cluster if links else None
    band: tuple[float, float] | None = None
    if host is not None:
        from exactmap.sim.cost.host import read_host_profile
        from exactmap.sim.cost.price_plan import price_plan
        from exactmap.sim.planner.host_pricing import MEASURED_BAND

        costs, basis, band = price_plan(plan, read_host_profile(host)), f"host profile {host}", MEASURED_BAND
    elif profile is None:
        costs = profile_from_cost_lines(plan.cost, shown_path)
        made = dict(plan.made)
        basis, band = made.get("priced_with", "the plan's cost lines"), _band(made)
    else:
        text = read_bytes(profile, MAX_PROFILE_BYTES, "profile").decode("utf-8", errors="replace")
        costs, basis = Profile.from_json(text, profile), f"profile {profile}"
    if mover is not None:
        costs = replace(costs, mover=Mover(mover))
    sharing: LinkSharing | None = None
    if machine is not None:
        from exactmap.sim.verbs.link_sharing import LinkSharing, priced_alone

        sharing = LinkSharing(machine, spread, link_seed, paths)
        if profile is None:
            costs = priced_alone(plan, costs, machine)
    return predict(
        plan,
        costs,
        sha256=sha256,
        path=shown_path,
        basis=basis,
        band=band,
        engine=engine,
        sharing=sharing,
        out=out,
        pictures=pictures,
    )


def predict(
    plan: Plan,
    costs: Profile,
    *,
    sha256: str,
    path: str,
    basis: str,
    band: tuple[float, float] | None = None,
    engine: str = "replay",
    sharing: LinkSharing | None = None,
    out: str | Path | None = None,
    pictures: bool = True,
) -> Simulation:
    """Run one of the engines on a checked plan and write what was asked for."""
    from exactmap.sim.engine.durations import resolve

    durations = resolve(plan, costs)
    use: LinkUse | None = None
    if sharing is not None:
        trace, use = _shared(plan, durations, sharing, sha256)
    elif engine == "events":
        from exactmap.sim.engine.events import simulate_events

        trace = simulate_events(plan, durations, plan_sha256=sha256)
    else:
        from exactmap.sim.engine.replay import replay

        trace = replay(plan, durations, plan_sha256=sha256)
    made = dict(plan.made)
    result = StepResult.from_summary(
        plan,
        trace.summary(),
        kind="prediction",
        source=engine,
        plan_sha256=sha256,
        plan_path=path,
        basis=basis,
        model_flop_per_step=_model_flop(plan),
        peak_flop_per_s=_number(made.get("peak_flop_per_s", "")) or 0.0,
        band=band,
    )
    if use is not None:
        result = replace(result, extra={**result.extra, "shared_links": use.to_dict()})
    if out is None:
        return Simulation(plan, trace, result, links=use)
    from exactmap.sim.engine.trace_file import write_trace
    from exactmap.sim.report.pictures import write_pictures

    folder = make_folder(out)
    result = replace(result, trace="trace.tsv")
    files = [folder / "prediction.json", folder / "trace.tsv"]
    write_trace(trace, files[1])
    write_atomically(files[0], result.to_json())
    if pictures:
        files += write_pictures(plan, trace, folder, f"predicted, {made.get('schedule', 'plan')}")
    return Simulation(plan, trace, result, tuple(files), use)


def _shared(plan: Plan, durations: Durations, sharing: LinkSharing, sha256: str) -> tuple[Trace, LinkUse]:
    from exactmap.sim.engine.events import simulate_shared
    from exactmap.sim.engine.shared_links import share_links
    from exactmap.topology.fabric.fabric import Spread

    links = share_links(
        plan,
        durations,
        sharing.cluster,
        spread=Spread(sharing.spread),
        seed=sharing.seed,
        paths=sharing.paths,
    )
    step = simulate_shared(plan, durations, links, plan_sha256=sha256)
    return step.trace, step.use


def _model_flop(plan: Plan) -> int:
    from exactmap.sim.cost.plan_header import model_of
    from exactmap.sim.workload.operators import model_flop

    num_sequences = plan.train.microbatch * plan.train.m * plan.mesh.dp
    return model_flop(model_of(plan.model), plan.train.seq, num_sequences)


def _band(made: dict[str, str]) -> tuple[float, float] | None:
    low, _, high = made.get("band", "").partition(",")
    band = _number(low), _number(high)
    return None if band[0] is None or band[1] is None else (band[0], band[1])


def _number(text: str) -> float | None:
    """A finite number in an information line, which binds nobody: anything else counts as not said."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
