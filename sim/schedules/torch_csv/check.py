"""The verdict on a schedule of torch: what is wrong with it, and how long its step takes.

torch's own ``_validate_schedule`` looks at passes alone, and counts them in sets. It takes a rank without
a single RECV, a SEND before its pass, a pass that stands twice. Here the rules are, in this order:

==============  ==========================================================================================
``pass.*``      each (stage, microbatch): one F; one B, or one I and one W; in this order
``message.*``   a SEND and a RECV for each input from another rank, once, behind what makes it, before what
                takes it; none between stages of one rank; all actions on the rank of their stage
``gather.*``    a stage is unsharded while it computes; UNSHARD and RESHARD in turn
``reduce.*``    gradients of each stage are reduced once, behind its last W or B
``progress.*``  the step ends: passes do not wait for each other, nor do messages in the queues named
==============  ==========================================================================================

A rule is only asked if those before it hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InfeasibleError
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.schedules.torch_csv.actions import ACTION_CODES, ACTION_KINDS, ActionKind
from exactmap.sim.schedules.torch_csv.channels import Blocked, ChannelModel, run_channels
from exactmap.sim.schedules.torch_csv.file import TorchSchedule
from exactmap.sim.schedules.torch_csv.lower import lower_as_torch
from exactmap.sim.schedules.torch_csv.passes import Finding, Rows, pass_findings

__all__ = ["ChannelVerdict", "TorchVerdict", "check_torch"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_UNIT_NS = 1_000_000
_SHARED = {
    ChannelModel.RANK: "all messages of a rank share a queue",
    ChannelModel.PAIR: "all messages between two ranks share a queue",
    ChannelModel.DIRECTION: "all messages from a rank to another share a queue",
    ChannelModel.CLASS: "all messages of a class from a rank to another share a queue",
}


class ChannelVerdict(NamedTuple):
    """A step with its messages under one model: its makespan, or None and the circle that never ends."""

    model: ChannelModel
    makespan: float | None
    circle: tuple[Blocked, ...]


@dataclass(frozen=True, slots=True)
class TorchVerdict:
    """What `check_torch` says.

    Times are those of unit passes without latency: F, I and W of all stages of a rank take 1 each. They
    are None where a rule that comes first is broken.

    Parameters
    ----------
    findings
        What is wrong.
    makespan
        Time of a step, if only passes count.
    bubble
        Share of it that a rank idles, on average.
    channels
        The same step with messages, under each model of the channels. A file without messages is lowered
        first, as torch does when it loads it.
    """

    findings: tuple[Finding, ...]
    makespan: float | None = None
    bubble: float | None = None
    channels: tuple[ChannelVerdict, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong; what is only worth a look does not count."""
        return not any(finding.error for finding in self.findings)


def check_torch(
    schedule: TorchSchedule, *, channels: ChannelModel = ChannelModel.PAIR, braid_share: float = 1.0
) -> TorchVerdict:
    r"""Check a schedule and walk it in time.

    Parameters
    ----------
    schedule
        What was read.
    channels
        The model under which messages must get through. torch posts them one by one; over NCCL it has one
        stream for each pair of ranks (pytorch/pytorch#132852).
    braid_share
        What an overlap takes, as a share of the sum of its passes.

    Examples
    --------
    >>> from exactmap.sim.schedules.torch_csv.file import parse_torch_csv
    >>> verdict = check_torch(parse_torch_csv("0F0,0B0\n1F0,1B0,1B0\n"))
    >>> [(finding.rank, finding.cell, finding.why) for finding in verdict.findings]
    [(1, 3, 'stands in cell 2 already')]
    >>> check_torch(parse_torch_csv("0F0,0B0\n1F0,1B0\n")).makespan
    6.0
    """
    m = schedule.num_microbatches
    findings = pass_findings(schedule.ranks, schedule.placement, m)
    if schedule.form == "compute_comms":
        findings += _misplaced(schedule)
        if not findings:
            findings = [
                *_message_findings(schedule),
                *_gather_findings(schedule),
                *_reduce_findings(schedule),
            ]
    if any(finding.error for finding in findings):
        return TorchVerdict(tuple(findings))

    order = schedule.order()
    unit_ns = round(_UNIT_NS * schedule.num_ranks)
    work_ns = {(op, stage): unit_ns for op in ("F", "I", "W") for stage in range(schedule.num_stages)}
    times = WorkTimes(work_ns, braid_share=braid_share)
    per_rank = unit_ns * schedule.num_stages / schedule.num_ranks
    try:
        timeline = walk(order, times)
    except InfeasibleError as error:
        rank = int(str(error.where).removeprefix("rank "))
        why = "passes wait for each other"
        findings.append(Finding("progress.pass", rank, 0, str(error.got), why))
        return TorchVerdict(tuple(findings))
    busy_ns = sum(
        _busy_ns(starts, ends) for starts, ends in zip(timeline.start_ns, timeline.end_ns, strict=True)
    )
    makespan_ns = timeline.makespan_ns

    ranks = schedule.ranks if schedule.form == "compute_comms" else lower_as_torch(order)
    rank_of = [held[0] for held in schedule.placement]
    runs = [run_channels(ranks, rank_of, m, model, times) for model in ChannelModel]
    for run in runs:
        if run.makespan_ns is None:
            circle = " < ".join(f"rank {at.rank} {at.action} (cell {at.cell})" for at in run.circle)
            first = run.circle[0]
            why = f"never ends if {_SHARED[run.model]}; each waits for the next: {circle}"
            rule = f"progress.{run.model}"
            findings.append(
                Finding(rule, first.rank, first.cell, first.action, why, error=run.model is channels)
            )
    return TorchVerdict(
        tuple(findings),
        makespan_ns / per_rank,
        1 - busy_ns / (schedule.num_ranks * makespan_ns),
        tuple(
            ChannelVerdict(run.model, run.makespan_ns and run.makespan_ns / per_rank, run.circle)
            for run in runs
        ),
    )


def _busy_ns(starts: Ints, ends: Ints) -> int:
    """Time in which a rank works; the members of an overlap share theirs."""
    return int((ends - starts)[np.concatenate(([True], starts[1:] != starts[:-1]))].sum())


def _misplaced(schedule: TorchSchedule) -> list[Finding]:
    """Messages and collectives of stages or microbatches that the rank does not have."""
    out: list[Finding] = []
    rank_of = np.array([held[0] for held in schedule.placement])
    for rank, actions in enumerate(schedule.ranks):
        stage = np.minimum(actions.stage, schedule.num_stages - 1)
        foreign = (actions.stage >= schedule.num_stages) | (rank_of[stage] != rank)
        unknown = actions.microbatch >= schedule.num_microbatches
        for row in np.flatnonzero((foreign | unknown) & ~actions.is_pass).tolist():
            if foreign[row]:
                why = f"names stage {actions.stage[row]}, of which rank {rank} runs no pass"
            else:
                why = f"names microbatch {actions.microbatch[row]}, which has no pass"
            out.append(Finding("message.place", rank, int(actions.cell[row]), actions.name(row), why))
    return out


def _message_findings(schedule: TorchSchedule) -> list[Finding]:
    """Messages that are missing, twice, needless, too early or too late."""
    rows = Rows(schedule.ranks, schedule.num_stages, schedule.num_microbatches)
    m, num_stages = schedule.num_microbatches, schedule.num_stages
    rank_of = np.array([held[0] for held in schedule.placement])
    # Whether stage s sends activations to the stage above, and so gets gradients from there.
    crosses = np.zeros(num_stages, dtype=np.bool_)
    crosses[:-1] = rank_of[1:] != rank_of[:-1]
    enters = np.concatenate(([False], crosses[:-1]))
    at = {kind: rows.places(kind)[0] for kind in (ActionKind.F, ActionKind.I, ActionKind.B)}
    backward = np.where(at[ActionKind.B] >= 0, at[ActionKind.B], at[ActionKind.I])
    out: list[Finding] = []
    for kind, wanted, passes, step in (
        (ActionKind.SEND_F, crosses, at[ActionKind.F], 1),
        (ActionKind.RECV_F, enters, at[ActionKind.F], -1),
        (ActionKind.SEND_B, enters, backward, -1),
        (ActionKind.RECV_B, crosses, backward, 1),
    ):
        first, again = rows.places(kind)
        sends = kind in {ActionKind.SEND_F, ActionKind.SEND_B}
        for row in again.tolist():
            rank, cell, text = rows.find(row)
            earlier = rows.find(int(first[rows.item[row]]))[1]
            out.append(Finding("message.twice", rank, cell, text, f"stands in cell {earlier} already"))
        need = np.repeat(wanted, m)
        for item in np.flatnonzero(need & (first < 0)).tolist():
            stage, microbatch = divmod(item, m)
            rank, cell, text = rows.find(int(passes[item]))
            peer = int(rank_of[stage + step])
            verb = f"makes what rank {peer} needs" if sends else f"needs what rank {peer} makes"
            why = f"is missing: {text} in cell {cell} {verb}"
            out.append(Finding("message.missing", rank, 0, f"{stage}{kind}{microbatch}", why))
        for item in np.flatnonzero(~need & (first >= 0)).tolist():
            rank, cell, text = rows.find(int(first[item]))
            stage = item // m
            inside = 0 <= stage + step < num_stages
            why = f"has stage {stage + step} on the same rank" if inside else f"has no stage beyond {stage}"
            out.append(Finding("message.needless", rank, cell, text, why))
        wrong = (first < passes) if sends else (first > passes)
        for item in np.flatnonzero(need & (first >= 0) & wrong).tolist():
            rank, cell, text = rows.find(int(first[item]))
            _, other_cell, other = rows.find(int(passes[item]))
            why = f"comes {'before' if sends else 'after'} {other} in cell {other_cell}"
            out.append(Finding("message.early" if sends else "message.late", rank, cell, text, why))
    return sorted(out, key=lambda finding: (finding.rank, finding.cell))


def _gather_findings(schedule: TorchSchedule) -> list[Finding]:
    """Stages that compute without their parameters, or are gathered and freed out of turn."""
    unshard, reshard = ACTION_CODES[ActionKind.UNSHARD], ACTION_CODES[ActionKind.RESHARD]
    if not any(np.isin(actions.kind, (unshard, reshard)).any() for actions in schedule.ranks):
        return []
    out: list[Finding] = []
    for rank, actions in enumerate(schedule.ranks):
        gathered: dict[int, int] = {}
        used: set[int] = set()
        for row, (kind, stage) in enumerate(zip(actions.kind.tolist(), actions.stage.tolist(), strict=True)):
            why = rule = ""
            if actions_of_pass := kind < unshard:
                used.add(stage)
                if stage not in gathered:
                    rule, why = "gather.missing", f"runs while stage {stage} is sharded"
            elif kind == unshard:
                if stage in gathered:
                    rule, why = "gather.twice", f"stage {stage} is unsharded since cell {gathered[stage]}"
                gathered[stage] = int(actions.cell[row])
                used.discard(stage)
            elif kind == reshard:
                if stage not in gathered:
                    rule, why = "gather.early", f"stage {stage} is not unsharded here"
                elif stage not in used:
                    rule, why = "gather.unused", f"stage {stage} was unsharded for no pass"
                gathered.pop(stage, None)
            if why:
                out.append(Finding(rule, rank, int(actions.cell[row]), actions.name(row), why))
                if actions_of_pass:
                    gathered[stage] = 0  # said once
        for stage, cell in gathered.items():
            if cell:
                why = "is never followed by a RESHARD: the next step cannot begin with it"
                out.append(Finding("gather.left", rank, cell, f"{stage}UNSHARD", why))
    return out


def _reduce_findings(schedule: TorchSchedule) -> list[Finding]:
    """Gradients that are reduced never, twice, or before they are complete."""
    code = ACTION_CODES[ActionKind.REDUCE_GRAD]
    last_pass = {ACTION_CODES[ActionKind.W], ACTION_CODES[ActionKind.B]}
    nowhere = not any((actions.kind == code).any() for actions in schedule.ranks)
    if nowhere:
        why = (
            "is missing for every stage: torch then neither reduces gradients over replicas nor averages them"
        )
        return [Finding("reduce.missing", 0, 0, ActionKind.REDUCE_GRAD, why, error=False)]
    out: list[Finding] = []
    for rank, actions in enumerate(schedule.ranks):
        reduced: dict[int, int] = {}
        late: set[int] = set()
        for row, (kind, stage) in enumerate(zip(actions.kind.tolist(), actions.stage.tolist(), strict=True)):
            cell = int(actions.cell[row])
            if kind == code:
                if stage in reduced:
                    why = f"stands in cell {reduced[stage]} already"
                    out.append(Finding("reduce.twice", rank, cell, actions.name(row), why))
                reduced.setdefault(stage, cell)
            elif kind in last_pass and stage in reduced and stage not in late:
                late.add(stage)
                why = f"adds to gradients that {stage}REDUCE_GRAD in cell {reduced[stage]} has reduced"
                out.append(Finding("reduce.early", rank, cell, actions.name(row), why))
        for stage, held in enumerate(schedule.placement):
            if held[0] == rank and stage not in reduced:
                text = f"{stage}{ACTION_KINDS[code]}"
                out.append(Finding("reduce.missing", rank, 0, text, "is missing: its gradients stay apart"))
    return out
