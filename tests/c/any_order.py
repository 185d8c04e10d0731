"""Orders of works at random: whatever is ready is done next, so every feature meets every other."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work

__all__ = ["any_order", "crossed"]

Placement = tuple[tuple[int, ...], ...]


def crossed(num_ranks: int) -> Placement:
    """Each stage on two ranks, in opposite directions: even microbatches go down, odd ones up."""
    return tuple((rank, num_ranks - 1 - rank) for rank in range(num_ranks))


def any_order(
    seed: int,
    m: int,
    placement: Placement,
    *,
    slices: int = 1,
    split: bool = False,
    braids: bool = False,
    again: Collection[int] = (),
    away: Collection[int] = (),
) -> Order:
    """A random order of a step.

    Parameters
    ----------
    seed
        Of the random choices.
    m
        Microbatches.
    placement
        Ranks of each stage; microbatch b runs on the one at place b modulo their number.
    slices
        Slices of a sequence.
    split
        I and W instead of B.
    braids
        Now and then two works that are both ready on a rank are one.
    again, away
        Stages that compute their forward pass again; stages whose stash waits in host memory.
    """
    rng = np.random.default_rng(seed)
    num_stages, num_ranks = len(placement), 1 + max(max(ranks) for ranks in placement)
    ranks: list[list[Work]] = [[] for _ in range(num_ranks)]
    done: set[Work] = set()
    backward = Op.I if split else Op.B
    todo = {
        Work(op, stage, microbatch, cut)
        for stage in range(num_stages)
        for microbatch in range(m)
        for cut in range(slices)
        for op in (
            Op.F,
            *((Op.RC,) if stage in again else ()),
            *((Op.OFF, Op.LD) if stage in away else ()),
            backward,
            *((Op.W,) if split else ()),
        )
    }

    def needs(work: Work) -> list[Work]:
        op, stage, _, cut, _ = work
        forward, stash = work._replace(op=Op.F), Op.RC if stage in again else Op.F
        if op is Op.F:
            before = [work._replace(stage=stage - 1)] if stage else []
            return before + ([work._replace(slice=cut - 1)] if cut else [])
        if op is Op.RC:
            return [forward]
        if op is Op.OFF:
            return [work._replace(op=stash)]
        if op is Op.LD:
            return [work._replace(op=Op.OFF)]
        if op is Op.W:
            return [work._replace(op=Op.I)]
        after = [work._replace(stage=stage + 1)] if stage + 1 < num_stages else []
        after += [work._replace(slice=cut + 1)] if cut + 1 < slices else []
        return [*after, work._replace(op=Op.LD if stage in away else stash)]

    def home(work: Work) -> int:
        held = placement[work.stage]
        return held[work.microbatch % len(held)]

    number = 0
    while todo:
        ready = sorted((w for w in todo if all(need in done for need in needs(w))), key=str)
        first = ready[int(rng.integers(len(ready)))]
        beside = [
            w
            for w in ready
            if home(w) == home(first) and w[1:3] != first[1:3] and not {Op.OFF, Op.LD} & {w.op, first.op}
        ]
        works = [first]
        if braids and beside and rng.random() < 0.7:
            works.append(beside[int(rng.integers(len(beside)))])
            ranks[home(first)] += [work._replace(braid=number) for work in works]
            number += 1
        else:
            ranks[home(first)].append(first)
        done.update(works)
        todo.difference_update(works)
    return Order(m, tuple(tuple(sorted(held)) for held in placement), ranks, slices)
