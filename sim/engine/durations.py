"""All durations of one plan as integers: what remains of a machine once a plan meets a profile.

An engine needs the plan (what happens in which order) and this (how long each piece takes). Durations are
fixed before the step, so a straggler, a jitter or a slow link is an edit here, not another kind of engine.

A *lane* is a full set of pipeline ranks with common dp, tp, cp and ep coordinates. Equal lanes are simulated
once: a plan without overrides on an even machine has a single lane, however many GPUs it maps to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.encoded import KINDS, POST_KINDS, EncodedProgram, Ints, encode
from exactmap.sim.plan.instruction import Op

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Braid, Mover, Profile
    from exactmap.sim.plan.plan import Plan

__all__ = [
    "ActorDurations",
    "ChannelDurations",
    "Durations",
    "Lane",
    "resolve",
    "split_inner",
    "split_replica",
]

_INNER_AXES = ("tp", "cp", "ep")
_PASSES = frozenset({Op.F, Op.I, Op.W, Op.B, Op.RC})
_UPDATES = frozenset({Op.ZERO, Op.OPT, Op.PV, Op.UNDO})
_COPIES = frozenset({Op.OFF, Op.LD})
_FB = KINDS.index(Op.FB)
_CHANNEL_POSTS = frozenset({Op.SF, Op.SB, Op.RF, Op.RB})
_LIMIT_NS = 2**62
_MAX_TABLE = 2**18  # beyond that, sorting is cheaper than a table


@dataclass(frozen=True, slots=True)
class Lane:
    """Pipeline ranks 0..pp-1 at one (dp, tp, cp, ep) coordinate, standing for all of `replicas`.

    `replicas` are equal and ascend; `inner` is the (tp, cp, ep) coordinate, zeros where these axes are held
    equal.
    """

    replicas: tuple[int, ...]
    inner: tuple[int, int, int] = (0, 0, 0)

    @property
    def dp(self) -> int:
        """The lowest replica that the lane stands for: its name."""
        return self.replicas[0]

    def coordinate(self, axis: str) -> int:
        """Coordinate on `axis`, one of tp, cp, ep, dp."""
        return self.dp if axis == "dp" else self.inner[_INNER_AXES.index(axis)]

    def moved(self, axis: str, value: int) -> Lane:
        """The same lane at another coordinate on `axis`, one of tp, cp, ep."""
        tp, cp, ep = (
            value if axis == name else old for name, old in zip(_INNER_AXES, self.inner, strict=True)
        )
        return replace(self, inner=(tp, cp, ep))


@dataclass(frozen=True, slots=True, eq=False)
class ActorDurations:
    """Durations of one actor (a pipeline rank of a lane); all arrays have shape [instructions], in ns."""

    program: EncodedProgram
    comp_ns: Ints  #: what compute spends: a work's duration, a post's cost, else 0
    op_ns: Ints  #: duration of the group operation or copy that a post starts, else 0
    issue_ns: Ints  #: what the host spends to issue the instruction


@dataclass(frozen=True, slots=True, eq=False)
class ChannelDurations:
    """Times of one channel of a lane; arrays have shape [messages], in ns."""

    wire_ns: Ints  #: occupies the channel and the sender
    lat_ns: Ints  #: only delays
    copy_ns: Ints  #: empties a receive buffer (depth > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Durations:
    """Every duration that a plan needs on one machine.

    Parameters
    ----------
    mover
        Who moves bytes.
    lanes
        Distinct lanes, ordered by replica class (the default first), then by inner coordinate.
    actors
        (lane number, pipeline rank) -> its durations.
    channels
        (lane number, channel name) -> its times.
    """

    mover: Mover
    lanes: tuple[Lane, ...]
    actors: Mapping[tuple[int, int], ActorDurations]
    channels: Mapping[tuple[int, str], ChannelDurations]

    def __post_init__(self) -> None:
        """Refuse durations that are negative or whose sum could leave 64 bits."""
        total = 0
        for actor in self.actors.values():
            arrays = (actor.comp_ns, actor.op_ns, actor.issue_ns)
            total += _checked_sum(arrays)
        for channel in self.channels.values():
            total += _checked_sum((channel.wire_ns, channel.lat_ns, channel.copy_ns))
        if total > _LIMIT_NS:
            raise InvalidInputError("the durations add up to more than 2^62 ns", got=f"{total} ns")

    @property
    def replicas(self) -> dict[int, int]:
        """Replica -> how many equal replicas it stands for."""
        return {lane.dp: len(lane.replicas) for lane in self.lanes}


def _checked_sum(arrays: tuple[Ints, ...]) -> int:
    total = 0
    for array in arrays:
        if array.size:
            low, high = int(array.min()), int(array.max())
            if low < 0:
                raise InvalidInputError("a duration is negative", got=f"{low} ns")
            # A bound by size first: the sum itself may not fit.
            total += high * array.size if high > _LIMIT_NS // array.size else int(array.sum())
    return total


def resolve(plan: Plan, profile: Profile, programs: Mapping[str, EncodedProgram] | None = None) -> Durations:
    """Price each instruction and message of a plan with a profile.

    There is one lane per class of replicas (`Plan.replica_classes`); `split_replica` and `split_inner` make
    more where durations differ.

    Parameters
    ----------
    plan
        The plan.
    profile
        Durations by kind and stage, bucket, group or channel.
    programs
        The plan's programs by name, where they are encoded already (`CompiledPlan.programs`): all durations
        of a compiled plan share them.

    Raises
    ------
    InvalidInputError
        If the profile lacks a duration that the plan needs, or the plan's queues do not pair up.
    """
    if programs is None:
        programs = {program.name: encode(plan, program) for program in plan.programs}
    priced = {name: _price(plan, program, profile) for name, program in programs.items()}
    classes = plan.replica_classes()
    own = {dp for dp in classes if dp >= 0}
    lanes: list[Lane] = []
    actors: dict[tuple[int, int], ActorDurations] = {}
    channels: dict[tuple[int, str], ChannelDurations] = {}
    for number, dp in enumerate(classes):
        others = tuple(replica for replica in range(plan.mesh.dp) if replica not in own)
        lanes.append(Lane(others if dp < 0 else (dp,)))
        for pp in range(plan.mesh.pp):
            actors[number, pp] = priced[plan.program(pp, dp).name]
        for index, channel in enumerate(plan.channels):
            program = actors[number, channel.src].program
            num_messages = int((program.queue[program.post_at] == 2 * index).sum())
            if num_messages:
                times = profile.transfer(channel.name)
                channels[number, channel.name] = ChannelDurations(
                    *(np.full(num_messages, ns, dtype=np.int64) for ns in times)
                )
    return Durations(profile.mover, tuple(lanes), actors, channels)


def _price(plan: Plan, program: EncodedProgram, profile: Profile) -> ActorDurations:
    """Look up each distinct (kind, stage, bucket, queue) once."""
    group = program.queue - 2 * len(plan.channels)
    group = np.where(POST_KINDS[program.kind] & (group >= 0), group, -1)
    # One integer per instruction that says all that its price depends on.
    key = program.kind.astype(np.int64)
    span = len(KINDS)
    for values in (program.stage, program.bucket, group):
        width = int(values.max()) + 2
        key, span = key * width + values + 1, span * width
    first, where = _distinct(key, span)
    comp = np.zeros(len(first), dtype=np.int64)
    op_cost = np.zeros(len(first), dtype=np.int64)
    for number, index in enumerate(first.tolist()):
        op = KINDS[program.kind[index]]
        stage, bucket = int(program.stage[index]), int(program.bucket[index])
        if op in _PASSES:
            comp[number] = profile.work(op.value, stage)
        elif op in _UPDATES:
            comp[number] = profile.bucket(op.value, stage, bucket)
        elif POST_KINDS[program.kind[index]]:
            comp[number] = profile.post(op.value)
            if op in _COPIES:
                op_cost[number] = profile.copy(op.value, stage)
            elif op not in _CHANNEL_POSTS:
                op_cost[number] = profile.group(
                    plan.groups[group[index]].name,
                    op.value,
                    None if stage < 0 else stage,
                    None if bucket < 0 else bucket,
                )
    comp_ns, op_ns = comp[where], op_cost[where]
    at, braids, which = _braids(program)
    comp_ns[at] = np.array([profile.braid(members) for members in braids], dtype=np.int64)[which]
    return ActorDurations(program, comp_ns, op_ns, np.full(len(key), profile.issue_ns, dtype=np.int64))


def _braids(program: EncodedProgram) -> tuple[Ints, list[Braid], Ints]:
    """Instructions that are braids, the distinct braids, and which of them each instruction is."""
    table = program.program.table
    at = np.flatnonzero(program.kind == _FB)
    key = np.zeros(len(at), dtype=np.int64)
    members = table.members
    if members is None or not len(at):
        return at, [], key
    span = int(members.stage.max()) + 2
    code = np.append(members.op.astype(np.int64) * span + members.stage + 1, 0)  # last: no such member
    first, num = table.first_member[at], table.num_members[at]
    for number in range(int(num.max())):
        member = code[np.where(number < num, first + number, -1)]
        # Keys stay small: the number of distinct ones so far, times the span of one member.
        key = np.unique(key * (len(KINDS) * span) + member, return_inverse=True)[1].astype(np.int64)
    _, examples, which = np.unique(key, return_index=True, return_inverse=True)
    braids = [
        tuple((KINDS[members.op[row]].value, int(members.stage[row])) for row in range(low, low + count))
        for low, count in zip(first[examples].tolist(), num[examples].tolist(), strict=True)
    ]
    return at, braids, which.astype(np.int64)


def _distinct(key: Ints, span: int) -> tuple[Ints, Ints]:
    """First place of each distinct key, and for each place which of them it holds; keys are in 0..span-1."""
    if span > _MAX_TABLE:
        _, first, where = np.unique(key, return_index=True, return_inverse=True)
        return first, where
    table = np.full(span, -1, dtype=np.int64)
    table[key[::-1]] = np.arange(len(key) - 1, -1, -1)  # of equal places the last assignment stays: the first
    keys = np.flatnonzero(table >= 0)
    first = table[keys]
    table[keys] = np.arange(len(keys))
    return first, table[key]


def split_replica(durations: Durations, dp: int) -> Durations:
    """Give replica `dp` lanes of its own, so that its durations can be edited; times stay as they are.

    Raises
    ------
    InvalidInputError
        If no lane stands for that replica.
    """
    lanes: list[Lane] = []
    sources: list[int] = []
    apart: list[tuple[Lane, int]] = []
    found = False
    for number, lane in enumerate(durations.lanes):
        found |= dp in lane.replicas
        rest = tuple(replica for replica in lane.replicas if replica != dp)
        if rest and len(rest) < len(lane.replicas):
            lanes.append(replace(lane, replicas=rest))
            apart.append((replace(lane, replicas=(dp,)), number))
        else:
            lanes.append(lane)
        sources.append(number)
    if not found:
        raise InvalidInputError("the plan has no such replica", got=f"dp={dp}")
    return _with_lanes(durations, [*zip(lanes, sources, strict=True), *apart])


def split_inner(durations: Durations, plan: Plan, axes: tuple[str, ...]) -> Durations:
    """Tell coordinates on `axes` (of tp, cp, ep) apart, so that durations can be edited; times stay.

    Raises
    ------
    InvalidInputError
        If an axis is none of tp, cp, ep.
    """
    sizes = {"tp": plan.mesh.tp, "cp": plan.mesh.cp, "ep": plan.mesh.ep}
    pairs = [(lane, number) for number, lane in enumerate(durations.lanes)]
    for axis in axes:
        if axis not in sizes:
            raise InvalidInputError("only tp, cp and ep can be split", got=axis)
        if not any(lane.coordinate(axis) for lane, _ in pairs):
            pairs = [
                (lane.moved(axis, value), source) for lane, source in pairs for value in range(sizes[axis])
            ]
    return _with_lanes(durations, pairs)


def _with_lanes(durations: Durations, pairs: list[tuple[Lane, int]]) -> Durations:
    """New lanes, each with the durations of an old one."""
    actors = {
        (number, pp): actor
        for number, (_, source) in enumerate(pairs)
        for (lane, pp), actor in durations.actors.items()
        if lane == source
    }
    channels = {
        (number, name): channel
        for number, (_, source) in enumerate(pairs)
        for (lane, name), channel in durations.channels.items()
        if lane == source
    }
    return Durations(durations.mover, tuple(lane for lane, _ in pairs), actors, channels)
