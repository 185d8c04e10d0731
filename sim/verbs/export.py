"""Hand a plan over: settings for other training frameworks, files for launchers, and what they cannot say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.files import write_atomically
from exactmap.sim.handover.handover import Handover, Job, LaidRanks
from exactmap.sim.handover.report import cannot_page
from exactmap.sim.handover.targets import Target, find_targets
from exactmap.sim.handover.verdict import Grade, Verdict
from exactmap.sim.verbs.input_kind import InputKind, refuse_others

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan

__all__ = ["Export", "Exported", "export"]

_EXECUTABLE = 0o111
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """One target: its verdict and the files that it got."""

    verdict: Verdict
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, object]:
        """The target as JSON-ready data."""
        return {
            "target": self.verdict.target,
            "verdict": self.verdict.grade.value,
            "lines": [asdict(line) | {"grade": line.grade.value} for line in self.verdict.lines],
            "files": [str(path) for path in self.files],
        }


@dataclass(frozen=True, slots=True)
class Export:
    """What was handed over.

    Parameters
    ----------
    path
        The plan.
    plan_sha256
        Hash of its file.
    cluster
        Name of the cluster whose GPUs its ranks were mapped on; None without one.
    targets
        As asked for.
    """

    path: str
    plan_sha256: str
    cluster: str | None
    targets: tuple[Exported, ...]

    def __getitem__(self, name: str) -> Exported:
        """A target by its name."""
        for each in self.targets:
            if each.verdict.target == name:
                return each
        raise KeyError(name)

    def to_dict(self) -> dict[str, object]:
        """The outcome as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "export",
            "path": self.path,
            "plan_sha256": self.plan_sha256,
            "cluster": self.cluster,
            "targets": [each.to_dict() for each in self.targets],
        }


def export(
    path: str | Path,
    to: str | Sequence[str],
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    cluster: str | Path | None = None,
    scenario: str | Path | None = None,
    hosts: str | None = None,
) -> Export:
    """Hand a plan over to frameworks and launchers, each in a folder of its own.

    Parameters
    ----------
    path
        A plan.
    to
        Targets: ``megatron``, ``torchtitan``, ``maxtext``, ``slurm``, ``mpi``, as a list or with commas.
    out
        The folder. Each target's has its files and ``cannot.md``, the account of all that the plan says.
    overrides
        ``a.b=c`` of ``cluster`` and ``map``.
    cluster
        Where the ranks sit: a name of the catalog, or a cluster file; slurm and mpi need it (or `scenario`).
    scenario
        A scenario, whose cluster and map are taken.
    hosts
        Names of all hosts of the cluster: as ``node[0001-0018]``, or a file with one a line.

    Raises
    ------
    InvalidInputError
        If an input is wrong, or a target is unknown or lacks a cluster.
    InfeasibleError
        If the plan has more ranks than the cluster has room for, or no target can take it.
    """
    targets = find_targets(to if isinstance(to, str) else ",".join(to))
    refuse_others(path, "a plan", InputKind.PLAN)
    folder = _folder(out)
    if cluster is not None and scenario is not None:
        raise InvalidInputError("two clusters", got="--cluster and --scenario", hint="leave out one")
    machine = scenario if cluster is None else cluster
    if machine is None:
        _check_no_machine(targets, path, overrides, hosts)
    from exactmap.sim.plan.check import load_plan

    plan, sha256 = load_plan(path)
    laid = None if machine is None else _lay(plan, machine, overrides, hosts)
    job = Job(plan, Path(path).name, sha256, laid)
    made = [(target, target.make(job)) for target in targets]
    if all(handover.verdict.grade is Grade.REFUSED for _, handover in made):
        raise _refusal(path, made)
    written = tuple(
        Exported(handover.verdict, _write(folder / target.name, job, handover)) for target, handover in made
    )
    outcome = Export(str(path), sha256, laid.cluster if laid is not None else None, written)
    write_atomically(folder / "handover.json", json.dumps(outcome.to_dict(), indent=2) + "\n")
    return outcome


def _folder(out: str | Path) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError("a file stands where the folder would", where=str(out))
    return folder


def _check_no_machine(
    targets: Sequence[Target], path: str | Path, overrides: Sequence[str], hosts: str | None
) -> None:
    """Without a machine no launcher can be told anything, and nothing about a machine makes sense."""
    needing = [target.name for target in targets if target.needs_map]
    if needing:
        raise InvalidInputError(
            f"{' and '.join(needing)} must know which GPU each rank sits on, and a plan knows no machine",
            where=str(path),
            expected="--cluster (a name of the catalog, a cluster file) or --scenario",
        )
    if overrides or hosts is not None:
        raise InvalidInputError(
            "there is no cluster to change",
            where=Place(field="--set" if overrides else "--hosts"),
            expected="--cluster or --scenario beside it",
        )


def _lay(plan: Plan, machine: str | Path, overrides: Sequence[str], hosts: str | None) -> LaidRanks:
    """Ranks on GPUs, with the names of all hosts."""
    from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster
    from exactmap.sim.verbs.host_names import host_names
    from exactmap.sim.verbs.plan_mesh import mesh_on
    from exactmap.topology.exact_map.host_list import default_hosts
    from exactmap.topology.exact_map.place import exact_map_of, machine_of

    room = load_mapped_cluster(machine, overrides)
    num_hosts = machine_of(room).num_hosts
    names = default_hosts(num_hosts) if hosts is None else host_names(hosts, num_hosts)
    return LaidRanks(exact_map_of(room, mesh_on(plan, room)), room.name, tuple(names))


def _refusal(path: str | Path, made: Sequence[tuple[Target, Handover]]) -> InfeasibleError:
    problems = [
        InfeasibleError(f"{line.fact}: {line.how}", where=target.name, got=line.says)
        for target, handover in made
        for line in handover.verdict.of(Grade.REFUSED)[:_MOST_REASONS]
    ]
    names = " and ".join(target.name for target, _ in made)
    return InfeasibleError(f"{names} cannot run this plan", where=str(path), problems=problems)


def _write(folder: Path, job: Job, handover: Handover) -> tuple[Path, ...]:
    """Files of one target; scripts can be run as they are."""
    written = []
    for name, content in (*handover.files.items(), ("cannot.md", cannot_page(job, handover.verdict))):
        target = folder / name
        write_atomically(target, content)
        if content.startswith("#!"):
            target.chmod(target.stat().st_mode | _EXECUTABLE)
        written.append(target)
    return tuple(written)
