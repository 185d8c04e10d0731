"""Put weight gradients between given forward and input-gradient passes.

Of a good order the passes F and I are the frame: only they are waited for by other ranks. W fills gaps, makes
room for F when memory is full, and runs at the end. Given the frame, each rank decides this by itself, so the
whole order is woven in one walk.
"""

from __future__ import annotations

from collections.abc import Sequence

from exactmap.sim.schedules.auto.problem import Problem, Sequences

__all__ = ["frame", "weave"]


def frame(problem: Problem, sequences: Sequences) -> Sequences:
    """Sequences without their weight gradients."""
    first_w = 2 * problem.num_stages * problem.num_microbatches
    return [[number for number in sequence if number < first_w] for sequence in sequences]


def weave(problem: Problem, frames: Sequences, gap_share: float, backlog: Sequence[int]) -> Sequences | None:
    """Sequences with weight gradients, or nothing if the frames wait for themselves or need more memory.

    W runs where it covers a gap by `gap_share` of itself, where F needs its memory, and where more than
    `backlog` of the rank (shape [p]) wait.
    """
    duration_ns, waits_for, delay_ns = problem.duration_ns, problem.waits_for, problem.delay_ns
    grows, limits = problem.grows, problem.limits
    items = problem.num_stages * problem.num_microbatches
    end_ns = [-1] * (2 * items)
    waiter: dict[int, int] = {}
    p = problem.num_ranks
    place, now_ns, level, next_w = [0] * p, [0] * p, [0] * p, [0] * p
    pending: list[list[int]] = [[] for _ in range(p)]
    result: Sequences = [[] for _ in range(p)]
    runnable = list(range(p))
    done = 0
    while runnable:
        rank = runnable.pop()
        works, out, waiting = frames[rank], result[rank], pending[rank]
        now, held, at, w = now_ns[rank], level[rank], place[rank], next_w[rank]
        limit, most = limits[rank], backlog[rank]
        while at < len(works):
            number = works[at]
            source = waits_for[number]
            begin = now
            if source >= 0:
                made = end_ns[source]
                if made < 0:
                    waiter[source] = rank
                    break
                made += delay_ns[number]
                if made > now:
                    begin = made
            while w < len(waiting):
                number_w = waiting[w]
                gap = begin - now
                if len(waiting) - w <= most and (gap <= 0 or gap < gap_share * duration_ns[number_w]):
                    break
                w += 1
                out.append(number_w)
                held += grows[number_w]
                now += duration_ns[number_w]
                begin = max(begin, now)
            if number < items:
                need = grows[number]
                while held + need > limit:
                    if w == len(waiting):
                        return None
                    number_w = waiting[w]
                    w += 1
                    out.append(number_w)
                    held += grows[number_w]
                    now += duration_ns[number_w]
                begin = max(begin, now)
            else:
                waiting.append(number + items)
            held += grows[number]
            now = begin + duration_ns[number]
            end_ns[number] = now
            out.append(number)
            at += 1
            if number in waiter:
                runnable.append(waiter.pop(number))
        else:
            out.extend(waiting[w:])
            done += 1
        now_ns[rank], level[rank], place[rank], next_w[rank] = now, held, at, w
    return result if done == p else None
