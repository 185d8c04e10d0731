"""Fast check of ranks against each other: every item runs once, messages meet, groups agree.

The rules of `exactmap.sim.plan.pairing`, column against column.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.accept_rows import need
from exactmap.sim.plan.accept_traffic import Actors, Traffic
from exactmap.sim.plan.pairing import group_instances
from exactmap.sim.plan.plan import Plan

__all__ = ["check_agreement"]

_NOTHING = slice(0, 0)


def check_agreement(plan: Plan, actors: Actors, traffic: Traffic) -> None:
    """Check ranks against each other.

    Raises
    ------
    Unproven
        If a rule does not hold.
    """
    for start in range(0, len(actors.programs), actors.num_ranks):
        programs = actors.programs[start : start + actors.num_ranks]
        _check_work(plan, programs, traffic)
        _check_messages(plan, programs, traffic)
    slots = {pool.pp: pool.bytes for pool in plan.pools if pool.letter == "h"}
    for channel in plan.channels:
        need(all(channel.bytes <= slots.get(rank, 0) for rank in (channel.src, channel.dst)))
    _check_groups(plan, actors, traffic)


def _check_work(plan: Plan, programs: list[int], traffic: Traffic) -> None:
    num_items = len(plan.stages) * plan.train.m * plan.train.slices
    items = np.concatenate([traffic.forwards[program] for program in programs])
    need(len(items) == num_items)
    need((np.bincount(items, minlength=num_items) == 1).all())


def _check_messages(plan: Plan, programs: list[int], traffic: Traffic) -> None:
    per_stage = plan.train.m * plan.train.slices
    for number, channel in enumerate(plan.channels):
        sends = traffic.channels.get((programs[channel.src], number), _NOTHING)
        receives = traffic.channels.get((programs[channel.dst], number), _NOTHING)
        step = per_stage if channel.cls == "F" else -per_stage
        need(np.array_equal(traffic.item[sends] + step, traffic.item[receives]))


def _check_groups(plan: Plan, actors: Actors, traffic: Traffic) -> None:
    """Members post the same kinds on buckets of one size; those of one rank, on the same buckets."""
    most = max(bucket.index for bucket in plan.buckets) + 1
    elements = np.zeros((len(plan.stages), most + 1), dtype=np.int64)  # the last column: no bucket
    for bucket in plan.buckets:
        elements[bucket.stage, bucket.index] = bucket.elements
    used = {number for _, number in traffic.groups}
    for number, group in enumerate(plan.groups):
        for members in group_instances(plan, group) if number in used else ():
            programs = [actors.programs[actors.number(rank, cls)] for rank, cls in members]
            places = [traffic.groups.get((program, number), _NOTHING) for program in programs]
            lengths = {place.stop - place.start for place in places}
            need(len(lengths) == 1)
            if not lengths.pop():
                continue
            posts = np.concatenate([np.arange(place.start, place.stop) for place in places])
            posts = posts.reshape(len(members), -1)
            op, stage, bucket_index = traffic.op[posts], traffic.stage[posts], traffic.bucket[posts]
            need((op == op[0]).all())
            sizes = elements[stage, bucket_index]
            need((sizes == sizes[0]).all())
            mates: dict[int, int] = {}
            mate = [mates.setdefault(rank, place) for place, (rank, _) in enumerate(members)]
            need((stage == stage[mate]).all() and (bucket_index == bucket_index[mate]).all())
