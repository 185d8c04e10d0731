"""The replay engine: the model of time as a longest path, walked once.

Every rule of the model reads t >= t' + constant on a graph that text, mover and depths fix, so the least
solution is a longest path (plan format, section 3). Between waits an actor's line is a prefix sum, which
numpy gives for whole programs (`exactmap.sim.engine.linked`); what is left is one number per wait. The loop
below advances each actor from wait to wait and settles a message or operation when the first wait asks for
it, so it never searches and never sorts. If actors remain that only wait for each other, the plan deadlocks
under these rules.
"""

# ruff: noqa: PLR1730 - max() would cost a call in the innermost loops.

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.assemble import ActorTimes, assemble
from exactmap.sim.engine.deadlock import deadlock_of
from exactmap.sim.engine.encoded import WORK_KINDS, Ints
from exactmap.sim.engine.linked import ActorLine, Linked, link

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["replay"]

_NEVER = -2


def replay(plan: Plan, durations: Durations, *, plan_sha256: str = "") -> Trace:
    """Times of one step from 0, by longest path.

    Parameters
    ----------
    plan
        A plan that passed its checks.
    durations
        Its durations and mover (`exactmap.sim.engine.durations.resolve`).
    plan_sha256
        Hash of the plan file's bytes, for the trace's header.

    Returns
    -------
    Trace
        One row per instruction of each lane's ranks; equal to the event engine's to the nanosecond.

    Raises
    ------
    DeadlockError
        If ranks wait for each other.
    InvalidInputError
        If posts and waits, sends and receives, or members of a group do not pair up.
    """
    inline = durations.mover is Mover.INLINE
    linked = link(plan, durations, inline=inline)
    solver = _Solver(linked, len(plan.channels))
    if not (solver.run_inline() if inline else solver.run_engine()):
        raise deadlock_of(plan)
    solver.freeze()
    times = {key: solver.times(line, inline=inline) for key, line in linked.lines.items()}
    return assemble("replay", plan, durations, times, plan_sha256=plan_sha256)


class _Solver:
    """State of the walk; -1 stands for a time that is not known yet."""

    def __init__(self, linked: Linked, num_channels: int) -> None:
        self.linked = linked
        self.num_channels = num_channels
        lines = list(linked.lines.values())
        self.starts = [line.first_wait for line in lines]
        self.ends = [*self.starts[1:], linked.num_waits]
        # M of each segment. An actor's first segment is known: nothing has delayed it.
        self.delay = [-1] * (linked.num_waits + len(lines))
        for line in lines:
            self.delay[line.first_segment] = 0
        self.owner = np.repeat(np.arange(len(lines)), [len(line.line_at) + 1 for line in lines]).tolist()
        num = len(linked.messages)
        self.freed = [-1] * num  # f: the wire is free
        self.over = [-1] * num  # done of the receive
        self.settled = [-1] * len(linked.operations)  # done of the operation
        self.results: tuple[Ints, ...] = ()
        self.costs: tuple[Ints, ...] = ()

    def run_engine(self) -> bool:
        """Walk all lines, mover engine; False if some never end."""
        linked, messages = self.linked, self.linked.messages
        delay, freed, over, settled = self.delay, self.freed, self.over, self.settled
        code, target, wait_sum = linked.code, linked.target, linked.wait_sum
        send_segment, send_sum, send_floor = messages.send_segment, messages.send_sum, messages.send_floor
        recv_segment, recv_sum, recv_floor = messages.recv_segment, messages.recv_sum, messages.recv_floor
        before, behind = messages.before, messages.behind
        wire, lat, copy = messages.wire, messages.lat, messages.copy
        issues, settle = linked.issues, self.settle

        def advance(number: int, wait: int, end: int) -> tuple[int, int]:
            """Walk one line as far as it goes; gives its place and the segment it needs (-1: none)."""
            now = delay[wait + number]
            while wait < end:
                what = target[wait]
                kind = code[wait]
                if kind == 2:  # an operation
                    done = settled[what]
                    if done < 0:
                        needed = settle(what)
                        if needed != -1:
                            return wait, needed
                        done = settled[what]
                else:
                    done = freed[what]
                    if done < 0:
                        # s = max(P_send, f(n-1), k=0: P_recv, k>0: done_recv(n-k))
                        done = delay[send_segment[what]]
                        if done < 0:
                            return wait, send_segment[what]
                        done += send_sum[what]
                        if issues and done < send_floor[what]:
                            done = send_floor[what]
                        other = before[what]
                        if other >= 0 and freed[other] > done:
                            done = freed[other]
                        other = behind[what]
                        if other == -2:
                            ready = delay[recv_segment[what]]
                            if ready < 0:
                                return wait, recv_segment[what]
                            ready += recv_sum[what]
                            if issues and ready < recv_floor[what]:
                                ready = recv_floor[what]
                            if ready > done:
                                done = ready
                        elif other >= 0:
                            ready = over[other]
                            if ready < 0:
                                # done_recv = max(f + lat, P_recv) + copy
                                ready = delay[recv_segment[other]]
                                if ready < 0:
                                    return wait, recv_segment[other]
                                ready += recv_sum[other]
                                if issues and ready < recv_floor[other]:
                                    ready = recv_floor[other]
                                if freed[other] + lat[other] > ready:
                                    ready = freed[other] + lat[other]
                                over[other] = ready = ready + copy[other]
                            if ready > done:
                                done = ready
                        freed[what] = done = done + wire[what]
                    if kind == 0:  # a receive
                        if over[what] < 0:
                            done += lat[what]
                            if behind[what] != -2:
                                ready = delay[recv_segment[what]] + recv_sum[what]
                                if issues and ready < recv_floor[what]:
                                    ready = recv_floor[what]
                                if ready > done:
                                    done = ready
                                done += copy[what]
                            over[what] = done
                        else:
                            done = over[what]
                done -= wait_sum[wait]
                if done > now:
                    now = done
                wait += 1
                delay[wait + number] = now
            return wait, -1

        return self._walk(advance)

    def run_inline(self) -> bool:
        """Walk all lines, mover inline; False if some never end."""
        linked, messages = self.linked, self.linked.messages
        delay, over, settled = self.delay, self.over, self.settled
        code, target, wait_sum, wait_floor = linked.code, linked.target, linked.wait_sum, linked.wait_floor
        send_segment, send_sum, send_floor = messages.send_segment, messages.send_sum, messages.send_floor
        wait_segment = messages.wait_segment
        span = [wire + lat for wire, lat in zip(messages.wire, messages.lat, strict=True)]
        issues, settle = linked.issues, self.settle

        def advance(number: int, wait: int, end: int) -> tuple[int, int]:
            now = delay[wait + number]
            while wait < end:
                what = target[wait]
                kind = code[wait]
                if kind == 0:  # a receive: s = max(P_send, a(WR))
                    done = delay[send_segment[what]]
                    if done < 0:
                        return wait, send_segment[what]
                    done += send_sum[what]
                    if issues and done < send_floor[what]:
                        done = send_floor[what]
                    reached = now + wait_sum[wait]
                    if issues and reached < wait_floor[wait]:
                        reached = wait_floor[wait]
                    if reached > done:
                        done = reached
                    over[what] = done = done + span[what]
                elif kind == 1:  # a send: over with its receive
                    done = over[what]
                    if done < 0:
                        return wait, wait_segment[what] + 1
                else:
                    done = settled[what]
                    if done < 0:
                        needed = settle(what)
                        if needed != -1:
                            return wait, needed
                        done = settled[what]
                done -= wait_sum[wait]
                if done > now:
                    now = done
                wait += 1
                delay[wait + number] = now
            return wait, -1

        return self._walk(advance)

    def _walk(self, advance: Callable[[int, int, int], tuple[int, int]]) -> bool:
        """Advance actors until all have ended or none can go on."""
        delay, owner, ends = self.delay, self.owner, self.ends
        at = list(self.starts)
        waiting: list[list[tuple[int, int]]] = [[] for _ in ends]
        ready = deque(range(len(ends)))
        num_ended = 0
        while ready:
            number = ready.popleft()
            start = at[number]
            stop, needed = advance(number, start, ends[number])
            at[number] = stop
            if needed == -1:
                num_ended += 1
            elif needed >= 0:
                waiting[owner[needed]].append((number, needed))
            if stop > start and waiting[number]:
                still = []
                for other, segment in waiting[number]:
                    if delay[segment] >= 0:
                        ready.append(other)
                    else:
                        still.append((other, segment))
                waiting[number] = still
        return num_ended == len(ends)

    def settle(self, operation: int) -> int:
        """Find when an operation is over; returns -1, or the segment it needs, or `_NEVER` for a cycle."""
        delay, settled = self.delay, self.settled
        operations, issues = self.linked.operations, self.linked.issues
        stack = [operation]
        entered = {operation}
        while stack:
            top = stack[-1]
            start = 0
            for segment, total, floor in operations.points[top]:
                time = delay[segment]
                if time < 0:
                    return segment
                time += total
                if issues and time < floor:
                    time = floor
                if time > start:
                    start = time
            for other in operations.after[top]:
                time = settled[other]
                if time < 0:
                    if other in entered:
                        return _NEVER
                    entered.add(other)
                    stack.append(other)
                    break
                if time > start:
                    start = time
            else:
                settled[top] = start + operations.duration[top]
                stack.pop()
        return -1

    def times(self, line: ActorLine, *, inline: bool) -> ActorTimes:
        """All times of one actor, from its delays."""
        actor = line.durations
        program = actor.program
        first = line.first_segment
        delay = np.array(self.delay[first : first + len(line.line_at) + 1], dtype=np.int64)
        put_off = delay[line.passed]
        arriving = put_off.copy()
        arriving[line.line_at] = delay[:-1]
        if line.host_ns is not None:
            put_off, arriving = np.maximum(put_off, line.host_ns), np.maximum(arriving, line.host_ns)
        e_ns = line.sum_ns + put_off
        is_coupled = line.coupled >= 0
        a_ns = line.sum_ns + arriving - np.where(is_coupled, 0, actor.comp_ns)
        s_ns, done_ns = np.full_like(a_ns, -1), np.full_like(a_ns, -1)
        self._fill_posts(line, s_ns, done_ns, inline=inline)
        shared = line.coupled[is_coupled].tolist()
        starts = np.where(WORK_KINDS[program.kind], a_ns, s_ns)
        starts[is_coupled] = [self.settled[op] - self.linked.operations.duration[op] for op in shared]
        return ActorTimes(a_ns, starts, e_ns, done_ns)

    def _fill_posts(self, line: ActorLine, s_ns: Ints, done_ns: Ints, *, inline: bool) -> None:
        """Start and end of what the posts started."""
        program = line.durations.program
        posts = program.post_at
        if not len(posts):
            return
        targets = line.targets(posts, program.order_of_post)
        queue = program.queue[posts]
        is_message = queue < 2 * self.num_channels
        freed, over, settled = self.results
        wire, lat, duration = self.costs
        moved = targets[is_message]
        if inline:
            s_ns[posts[is_message]] = over[moved] - wire[moved] - lat[moved]
            done_ns[posts[is_message]] = over[moved]
        else:
            s_ns[posts[is_message]] = freed[moved] - wire[moved]
            is_receive = queue[is_message] % 2 == 1
            done_ns[posts[is_message]] = np.where(is_receive, over[moved], freed[moved])
        started = targets[~is_message]
        done_ns[posts[~is_message]] = settled[started]
        s_ns[posts[~is_message]] = settled[started] - duration[started]

    def freeze(self) -> None:
        """Turn results into arrays, after the walk."""
        messages = self.linked.messages
        self.results = tuple(np.array(part, dtype=np.int64) for part in (self.freed, self.over, self.settled))
        parts = (messages.wire, messages.lat, self.linked.operations.duration)
        self.costs = tuple(np.array(part, dtype=np.int64) for part in parts)
