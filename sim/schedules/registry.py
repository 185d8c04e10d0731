"""All schedules by the field's names, with what each asks for and gives."""

from __future__ import annotations

from difflib import get_close_matches

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.auto.named import auto_order
from exactmap.sim.schedules.dualpipe import dualpipe, dualpipe_v
from exactmap.sim.schedules.gpipe import gpipe, terapipe
from exactmap.sim.schedules.interleaved import braided_interleaved, breadth_first, interleaved, interleaved_zb
from exactmap.sim.schedules.offload import offload_in_time
from exactmap.sim.schedules.one_f_one_b import eager_one_f_one_b, one_f_one_b, seq_one_f_one_b
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.recompute import recompute, recompute_selectively
from exactmap.sim.schedules.schedule import Request, Schedule
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.schedules.v_repeat import v_half, v_min
from exactmap.sim.schedules.wave import chimera, hanayo
from exactmap.sim.schedules.zb_h import zb_h1, zb_h2
from exactmap.sim.schedules.zb_v import zb_v

__all__ = ["SCHEDULES", "find_schedule", "make_order"]


def _mirrored(request: Request, least_per_rank: int) -> str:
    """Why two pipelines cannot run against each other, or nothing if they can."""
    p, m = request.num_ranks, request.num_microbatches
    if p % 2:
        return f"two pipelines against each other need an even number of ranks, got {p}"
    if m % 2:
        return f"two pipelines against each other need an even number of microbatches, got {m}"
    return _enough(request, least_per_rank)


def _enough(request: Request, least_per_rank: int) -> str:
    least = least_per_rank * request.num_ranks
    if request.num_microbatches < least:
        return f"at least {least_per_rank} microbatches per rank are needed, got {request.num_microbatches}"
    return ""


def _whole_waves(request: Request) -> str:
    if request.num_chunks % 2:
        return f"a wave takes two chunks per rank, got {request.num_chunks}"
    return ""


_ALL = (
    Schedule(
        "gpipe",
        lambda q: gpipe(q.num_ranks, q.num_microbatches),
        about="all forward, then all backward; idle (p-1)(F+B), stash m microbatches",
        source="arXiv:1811.06965",
    ),
    Schedule(
        "1f1b",
        lambda q: one_f_one_b(q.num_ranks, q.num_microbatches),
        about="forward and backward in turn; idle (p-1)(F+B), stash p-r microbatches on rank r",
        source="arXiv:2007.01045",
    ),
    Schedule(
        "eager-1f1b",
        lambda q: eager_one_f_one_b(q.num_ranks, q.num_microbatches),
        about="1f1b with twice the warm-up: hides hops; idle (p-1)(F+B), stash 2(p-1-r)+1 on rank r",
        source="arXiv:2211.05322",
    ),
    Schedule(
        "interleaved-1f1b",
        lambda q: interleaved(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="1f1b over v chunks per rank; idle (p-1)(F+B)/v, stash p(1+(p-1)/(pv)), v x messages",
        source="arXiv:2104.04473",
        many_chunks=True,
        groups=True,
    ),
    Schedule(
        "breadth-first",
        lambda q: breadth_first(q.num_ranks, q.num_microbatches, q.num_chunks),
        about="chunk by chunk all forward, then all backward; idle (p-1)(F+B)/v, stash m, v x messages",
        source="arXiv:2211.05953",
        many_chunks=True,
    ),
    Schedule(
        "zb-h1",
        lambda q: zb_h1(q.num_ranks, q.num_microbatches),
        about="1f1b with weight gradients put off; idle (p-1)(F+I-W), stash p microbatches",
        source="arXiv:2401.10241",
        splits_backward=True,
    ),
    Schedule(
        "zb-h2",
        lambda q: zb_h2(q.num_ranks, q.num_microbatches),
        about="zb-h1 with twice the warm-up; idle (p-1)(F+I-2W) without a barrier, stash 2p-1",
        source="arXiv:2401.10241",
        splits_backward=True,
        steady=True,
    ),
    Schedule(
        "interleaved-zb",
        lambda q: interleaved_zb(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="interleaved with weight gradients put off; idle (p-1)(F+I-W)/v, stash p, v x messages",
        source="torch.distributed.pipelining 2.13, after arXiv:2401.10241",
        many_chunks=True,
        splits_backward=True,
        groups=True,
    ),
    Schedule(
        "zb-v",
        lambda q: zb_v(q.num_ranks, q.num_microbatches),
        about="two chunks down and up, W put off; no idle time at F = I = W without a barrier, stash p",
        source="arXiv:2405.15362",
        constraints="2 chunks per rank",
        many_chunks=True,
        fixed_chunks=2,
        splits_backward=True,
        steady=True,
    ),
    Schedule(
        "v-half",
        lambda q: v_half(q.num_ranks, q.num_microbatches),
        about="a pattern repeated down and up; stash (p+2) div 2 microbatches, 2 x messages",
        source="arXiv:2405.15362",
        constraints="2 chunks per rank; W + 2I >= 2F and W + 2F >= 2I, or it idles in every microbatch",
        many_chunks=True,
        fixed_chunks=2,
        splits_backward=True,
    ),
    Schedule(
        "v-min",
        lambda q: v_min(q.num_ranks, q.num_microbatches),
        about="a pattern repeated down and up; stash (p+4) div 3 microbatches, 2 x messages",
        source="arXiv:2405.15362",
        constraints="2 chunks per rank; F = I = W and short hops, or it idles in every microbatch",
        many_chunks=True,
        fixed_chunks=2,
        splits_backward=True,
    ),
    Schedule(
        "dualpipe",
        lambda q: dualpipe(q.num_ranks, q.num_microbatches),
        about="two opposite pipelines, braided; idle (p/2-1)(F&B+B-3W) at F = I, stash p+1, weights twice",
        source="arXiv:2412.19437",
        constraints="p even, m even, m >= 2p",
        splits_backward=True,
        two_ranks=True,
        braids=True,
        obstacle=lambda q: _mirrored(q, 2),
    ),
    Schedule(
        "dualpipe-v",
        lambda q: dualpipe_v(q.num_ranks, q.num_microbatches),
        about="dualpipe folded in half: two chunks down and up, braided; stash p+1/2, parameters once",
        source="arXiv:2412.19437",
        constraints="2 chunks per rank, m >= 2p",
        many_chunks=True,
        fixed_chunks=2,
        splits_backward=True,
        braids=True,
        obstacle=lambda q: _enough(q, 2),
    ),
    Schedule(
        "braided-interleaved",
        lambda q: braided_interleaved(q.num_ranks, q.num_microbatches, q.num_chunks, q.group_size),
        about="interleaved with one more warm-up pass: forward and backward braided; stash one chunk more",
        source="arXiv:2507.20534",
        many_chunks=True,
        braids=True,
        groups=True,
    ),
    Schedule(
        "chimera",
        lambda q: chimera(q.num_ranks, q.num_microbatches),
        about="two pipelines against each other; p-2 of 2m+p-2 slots idle where F = B, weights twice",
        source="arXiv:2107.06925",
        constraints="p even, m even",
        two_ranks=True,
        obstacle=lambda q: _mirrored(q, 0),
    ),
    Schedule(
        "hanayo",
        lambda q: hanayo(q.num_ranks, q.num_microbatches, q.num_chunks),
        about="v/2 waves down and up; 2(p-1) of 2vm+2(p-1) slots idle where F = B, stash p, v x messages",
        source="arXiv:2308.15762",
        constraints="an even number of chunks per rank",
        many_chunks=True,
        obstacle=_whole_waves,
    ),
    Schedule(
        "seq-1f1b",
        lambda q: seq_one_f_one_b(q.num_ranks, q.num_microbatches, q.num_slices),
        about="1f1b over n slices of each sequence; idle about (p-1)(F+B)/n, stash (p-1+n)/n",
        source="arXiv:2406.03488",
        constraints="causal attention",
        slices=True,
    ),
    Schedule(
        "terapipe",
        lambda q: terapipe(q.num_ranks, q.num_microbatches, q.num_slices),
        about="gpipe over n slices of each sequence; idle (p-1)(F+B)/n, stash m",
        source="arXiv:2102.07988",
        constraints="causal attention",
        slices=True,
    ),
    Schedule(
        "1f1b-recompute",
        lambda q: recompute(one_f_one_b(q.num_ranks, q.num_microbatches)),
        about="1f1b, every forward pass done again; F more per microbatch, stash 1 microbatch",
        source="arXiv:1604.06174",
        recomputes=True,
        limits=True,
    ),
    Schedule(
        "1f1b-selective-recompute",
        lambda q: recompute_selectively(one_f_one_b(q.num_ranks, q.num_microbatches), q.stash_limit),
        about="1f1b, as many forward passes done again as the stash limit demands",
        source="arXiv:2205.05198",
        recomputes=True,
        limits=True,
    ),
    Schedule(
        "1f1b-offload",
        lambda q: offload_in_time(one_f_one_b(q.num_ranks, q.num_microbatches), q.stash_limit, q.times),
        about="1f1b, as many stashes sent to the host as the stash limit demands, all without one",
        source="arXiv:2503.01328",
        constraints="a stash limit of 3 or more for p > 3: one leaves, one returns, one works",
        copies=True,
        limits=True,
    ),
    Schedule(
        "auto",
        lambda q: auto_order(q.num_ranks, q.num_microbatches, q.num_chunks, q.times, q.stash_limit),
        about="searched for the durations at hand within the stash limit; never worse than the orders above",
        source="list scheduling after arXiv:2401.10241, patterns after arXiv:2405.15362, local search",
        many_chunks=True,
        splits_backward=True,
        limits=True,
    ),
)

SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in _ALL}
"""Schedule by name; where its constraints do not say otherwise it takes any p, m, its warm-up cut to fit."""


def find_schedule(name: str) -> Schedule:
    """The schedule called `name`.

    Raises
    ------
    InvalidInputError
        If there is none; the hint names the nearest.
    """
    schedule = SCHEDULES.get(name)
    if schedule is None:
        near = get_close_matches(name.lower(), SCHEDULES, 1)
        raise InvalidInputError(
            "unknown schedule",
            got=repr(name),
            expected=", ".join(SCHEDULES),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    return schedule


def make_order(
    name: str,
    num_ranks: int,
    num_microbatches: int,
    num_chunks: int = 1,
    *,
    num_slices: int = 1,
    group_size: int = 0,
    times: WorkTimes | None = None,
    stash_limit: int = 0,
) -> Order:
    """Order of works of a named schedule.

    Parameters
    ----------
    name
        Name in `SCHEDULES`.
    num_ranks, num_microbatches, num_chunks, num_slices
        p, m, v and the slices of each sequence.
    group_size
        Microbatches that go through the chunks together, 0: as many as the schedule likes best.
    times
        Durations, for schedules that look at them.
    stash_limit
        Microbatches of a rank's layers that it may stash, 0: no limit.

    Raises
    ------
    InvalidInputError
        If the name is unknown or the schedule cannot run with these numbers.
    InfeasibleError
        If it cannot keep to the stash limit.

    Examples
    --------
    >>> make_order("1f1b", 4, 8).num_stages
    4
    """
    schedule = find_schedule(name)
    request = Request(num_ranks, num_microbatches, num_chunks, num_slices, group_size, times, stash_limit)
    problem = schedule.problem_of(request)
    if problem:
        takes = schedule.constraints or "takes any p and m"
        raise InvalidInputError(problem, hint=f"{name}: {takes}; {schedule.about}")
    return schedule.make(request)
