"""List scheduling: every rank, whenever it is free, takes the best work that a rule lets it take.

A rule prefers works by a key, keeps forward passes within caps, and says when a weight gradient may fill a
gap or must make room. The memory limit holds by construction: a forward pass starts only if all later stages
of its rank still fit behind it. Then the oldest unfinished microbatch can always go on, so no rule can get
stuck: stages meet their microbatches in order, and what a later stage of the rank needs was kept free.
Zero Bubble's automatic scheduler (arXiv:2401.10241, section 3) is a list scheduler of this kind with three
binary knobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

from exactmap.sim.schedules.auto.problem import Problem, Sequences

__all__ = ["Rule", "dispatch"]

_FAR = 1 << 62


@dataclass(frozen=True, slots=True)
class Rule:
    """How a rank chooses; lists by stage have shape [S], by rank [p].

    Parameters
    ----------
    forward_key, input_key, weight_key
        By stage: (base, step); the smallest base + step*microbatch goes first.
    flight
        By stage: most microbatches between F and I at once.
    backlog
        By rank: most items between I and W at once; above it W goes first.
    gap_share
        W fills a gap only if it covers no more than this: gap >= gap_share * W.
    patience
        A work lets a better one go first that arrives within patience * its own duration.
    name
        For reports.
    """

    forward_key: tuple[tuple[float, float], ...]
    input_key: tuple[tuple[float, float], ...]
    weight_key: tuple[tuple[float, float], ...]
    flight: tuple[int, ...]
    backlog: tuple[int, ...]
    gap_share: float
    patience: float
    alternate: bool
    name: str


def dispatch(problem: Problem, rule: Rule) -> Sequences:
    """Sequences that a rule makes."""
    p, m, num_stages = problem.num_ranks, problem.num_microbatches, problem.num_stages
    forward_ns, input_ns, weight_ns = problem.forward_ns, problem.input_ns, problem.weight_ns
    rank_of, hop_ns = problem.rank_of, problem.hop_ns
    adds, frees, limits = problem.adds, problem.frees, problem.limits
    rests = [add - free for add, free in zip(adds, frees, strict=True)]
    last = num_stages - 1
    items = num_stages * m
    # Arrivals of inputs by stage, in order of microbatches.
    forward_at: list[list[int]] = [[0] * m] + [[] for _ in range(last)]
    input_at: list[list[int]] = [[] for _ in range(num_stages)]
    num_f, num_i, num_w = [0] * num_stages, [0] * num_stages, [0] * num_stages
    level, in_backlog = [0] * p, [0] * p
    free_ns, asleep = [0] * p, [False] * p
    sequences: Sequences = [[] for _ in range(p)]
    # What must stay free behind F of a stage: the later stages of its rank.
    kept = [0] * num_stages
    for stages in problem.stages_of:
        for place, stage in enumerate(stages):
            kept[stage] = sum(adds[later] for later in stages[place + 1 :])
    stages_of = problem.stages_of
    f_key, i_key, w_key = rule.forward_key, rule.input_key, rule.weight_key
    flight, backlog, gap_share, patience = rule.flight, rule.backlog, rule.gap_share, rule.patience
    events: list[tuple[int, int]] = [(0, rank_of[0])]
    asleep = [True] * p
    alternate = rule.alternate
    turn = [0] * p  # 1: a forward pass is due, 2: a backward pass is due.
    while events:
        now, rank = heappop(events)
        if free_ns[rank] > now or (not asleep[rank] and free_ns[rank] < now):
            continue
        best_kind, best_stage, best_key = -1, -1, 1e300
        filler, filler_key = -1, 1e300
        # The best work that is not here yet but known to come, and when the first of any kind comes.
        next_key, next_ns, soon_ns = 1e300, _FAR, _FAR
        room = limits[rank] - level[rank]
        due = turn[rank]
        must = in_backlog[rank] > backlog[rank]
        for stage in stages_of[rank]:
            at = num_f[stage]
            if at < len(forward_at[stage]) and at - num_i[stage] < flight[stage]:
                arrives = forward_at[stage][at]
                if room < adds[stage] + kept[stage]:
                    if due == 1 and arrives <= now:
                        must = True
                else:
                    base, step = f_key[stage]
                    key = base + step * at
                    if due == 1:
                        key -= 1e20
                    if arrives <= now:
                        if key < best_key:
                            best_kind, best_stage, best_key = 0, stage, key
                    else:
                        soon_ns = min(soon_ns, arrives)
                        if key < next_key:
                            next_key, next_ns = key, arrives
            at = num_i[stage]
            if at < len(input_at[stage]):
                arrives = input_at[stage][at]
                base, step = i_key[stage]
                key = base + step * at
                if due == 2:
                    key -= 1e20
                if arrives <= now:
                    if key < best_key:
                        best_kind, best_stage, best_key = 1, stage, key
                else:
                    soon_ns = min(soon_ns, arrives)
                    if key < next_key:
                        next_key, next_ns = key, arrives
            at = num_w[stage]
            if at < num_i[stage]:
                base, step = w_key[stage]
                key = base + step * at
                if key < filler_key:
                    filler, filler_key = stage, key
                if key < best_key:
                    best_kind, best_stage, best_key = 2, stage, key
        if must and filler >= 0 and (best_kind != 0 or in_backlog[rank] > backlog[rank]):
            best_kind, best_stage = 2, filler
        if best_kind < 0:
            asleep[rank] = True
            if soon_ns < _FAR:
                heappush(events, (soon_ns, rank))
            continue
        if best_kind == 2:
            if soon_ns - now < gap_share * weight_ns[best_stage] and not must:
                asleep[rank] = True
                heappush(events, (soon_ns, rank))
                continue
        elif next_key < best_key:
            mine_ns = forward_ns[best_stage] if best_kind == 0 else input_ns[best_stage]
            if next_ns - now < patience * mine_ns:
                if filler >= 0 and next_ns - now >= gap_share * weight_ns[filler]:
                    best_kind, best_stage = 2, filler
                else:
                    asleep[rank] = True
                    heappush(events, (next_ns, rank))
                    continue
        stage = best_stage
        asleep[rank] = False
        if best_kind == 0:
            at = num_f[stage]
            num_f[stage] = at + 1
            if due:
                turn[rank] = 2
            level[rank] += adds[stage]
            end = now + forward_ns[stage]
            sequences[rank].append(stage * m + at)
            if stage < last:
                to = rank_of[stage + 1]
                arrival = end + hop_ns if to != rank else end
                forward_at[stage + 1].append(arrival)
                if asleep[to]:
                    heappush(events, (arrival, to))
            else:
                input_at[stage].append(end)
        elif best_kind == 1:
            at = num_i[stage]
            num_i[stage] = at + 1
            if alternate:
                turn[rank] = 1
            level[rank] -= frees[stage]
            in_backlog[rank] += 1
            end = now + input_ns[stage]
            sequences[rank].append(items + stage * m + at)
            if stage > 0:
                to = rank_of[stage - 1]
                arrival = end + hop_ns if to != rank else end
                input_at[stage - 1].append(arrival)
                if asleep[to]:
                    heappush(events, (arrival, to))
        else:
            at = num_w[stage]
            num_w[stage] = at + 1
            level[rank] -= rests[stage]
            in_backlog[rank] -= 1
            end = now + weight_ns[stage]
            sequences[rank].append(2 * items + stage * m + at)
        free_ns[rank] = end
        heappush(events, (end, rank))
    return sequences
