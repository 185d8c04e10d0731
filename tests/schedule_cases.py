"""Random schedules of the registry with random sizes and durations, for tests that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["FIXED", "Case", "cases"]

# The automatic scheduler searches; it has tests of its own.
FIXED = [name for name in SCHEDULES if name != "auto"]


@dataclass(frozen=True)
class Case:
    """A schedule's numbers and durations."""

    name: str
    p: int
    m: int
    v: int
    slices: int
    group: int
    limit: int
    times: WorkTimes

    @property
    def order(self) -> Order:
        return make_order(
            self.name,
            self.p,
            self.m,
            self.v,
            num_slices=self.slices,
            group_size=self.group,
            times=self.times,
            stash_limit=self.limit,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    schedule = SCHEDULES[draw(st.sampled_from(FIXED))]
    p, m = draw(st.integers(1, 7)), draw(st.integers(1, 20))
    v = schedule.fixed_chunks or (draw(st.integers(1, 4)) if schedule.many_chunks else 1)
    if schedule.name == "hanayo":
        v = 2 * draw(st.integers(1, 3))
    if schedule.two_ranks:
        p, m = 2 * draw(st.integers(1, 3)), 2 * m
    if schedule.problem(p, m, v):
        m = max(m, 2 * p)
    slices = draw(st.integers(1, 4)) if schedule.slices else 1
    group = draw(st.one_of(st.just(0), st.integers(min(p, m), m))) if schedule.groups else 0
    # One stash leaves, one comes back and one is worked on; recomputation needs the last alone.
    least = 4 if schedule.copies else 1
    limit = draw(st.one_of(st.just(0), st.integers(least, least + p))) if schedule.limits else 0
    num_stages = p if schedule.two_ranks else p * v
    duration = st.integers(1, 30) if draw(st.booleans()) else st.just(draw(st.integers(1, 30)))
    work_ns = {(op, s): slices * draw(duration) for op in ("F", "I", "W", "RC") for s in range(num_stages)}
    share = draw(st.sampled_from((1.0, 0.8))) if schedule.braids else 1.0
    hop_ns = draw(st.sampled_from((0, 0, 1, 7, 60)))
    assert not schedule.problem(p, m, v, num_slices=slices, group_size=group, stash_limit=limit)
    return Case(schedule.name, p, m, v, slices, group, limit, WorkTimes(work_ns, hop_ns, share))
