"""Stories of the automatic scheduler: what it is asked for, and what it must never do."""

from __future__ import annotations

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.auto import Memory, find_order
from exactmap.sim.schedules.metrics import measure
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

# Zero Bubble, arXiv:2401.10241, tables 4 and 5: model, p, m, ms of F, I, W, hop, bubble of ZB-2p.
ZERO_BUBBLE_2P = (
    ("1.5B", 8, 24, 18.522, 18.086, 9.337, 0.601, 0.0433),
    ("1.5B", 8, 32, 18.513, 18.086, 9.331, 0.626, 0.0039),
    ("1.5B", 8, 64, 18.546, 18.097, 9.321, 0.762, 0.0026),
    ("6.2B", 8, 24, 29.718, 29.444, 19.927, 0.527, 0.0029),
    ("6.2B", 8, 32, 29.802, 29.428, 19.530, 0.577, 0.0022),
    ("6.2B", 8, 64, 29.935, 29.621, 19.388, 0.535, 0.0010),
    ("14.6B", 16, 48, 11.347, 11.248, 8.132, 0.377, 0.0066),
    ("14.6B", 16, 64, 11.307, 11.254, 8.101, 0.379, 0.0054),
    ("14.6B", 16, 128, 11.325, 11.308, 8.109, 0.378, 0.0028),
    ("28.3B", 32, 96, 10.419, 10.207, 7.715, 0.408, 0.0038),
    ("28.3B", 32, 128, 10.408, 10.204, 7.703, 0.408, 0.0029),
    ("28.3B", 32, 256, 10.402, 10.248, 7.698, 0.460, 0.0018),
)
# Hidden size and heads of these models; sequences of 1024 tokens.
SHAPES = {"1.5B": (2304, 24), "6.2B": (4096, 32), "14.6B": (5120, 40), "28.3B": (6144, 48)}
# ZB-V: us of F, I, W of a chunk, hop, bubble; two chunks per rank.
ZERO_BUBBLE_V = (
    (16, 48, 14407, 14380, 9676, 1610, 0.0697),
    (16, 64, 14412, 14393, 9688, 1621, 0.0533),
    (16, 128, 14316, 14306, 9639, 1619, 0.0274),
    (24, 72, 6763, 6969, 5251, 755, 0.0638),
    (24, 96, 6783, 6984, 5259, 758, 0.0483),
    (24, 192, 6785, 6990, 5260, 770, 0.0250),
    (32, 96, 9458, 9748, 7288, 879, 0.0593),
    (32, 128, 9469, 9744, 7306, 892, 0.0451),
    (32, 256, 9447, 9644, 7193, 887, 0.0236),
)


def even_times(num_stages: int, durations: tuple[float, float, float], hop: float) -> WorkTimes:
    work_ns = {
        (op, s): round(d * 1000) for s in range(num_stages) for op, d in zip("FIW", durations, strict=True)
    }
    return WorkTimes(work_ns, round(hop * 1000))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=() if row[1] == 8 and row[2] < 64 else pytest.mark.slow)
        for row in ZERO_BUBBLE_2P
    ],
    ids=lambda row: f"{row[0]}-p{row[1]}-m{row[2]}",
)
def test_at_twice_the_memory_bubbles_are_those_published_for_zb_2p(
    row: tuple[str, int, int, float, float, float, float, float],
) -> None:
    """With the paper's weights of memory (F adds 34h+5as, I frees 2h+5as, W 32h), limit 2p times F."""
    name, p, m, *times, published = row
    hidden, heads = SHAPES[name]
    forward, input_gradient = 34 * hidden + 5 * heads * 1024, 2 * hidden + 5 * heads * 1024
    memory = Memory((forward,) * p, (input_gradient,) * p, 2 * p * forward)
    found = find_order(
        p,
        m,
        even_times(p, (times[0], times[1], times[2]), times[3]),
        memory=memory,
        objective="period",
        budget=40 * 3 * p * m,
    )
    work_ns = m * round(1000 * sum(times[:3]))
    assert (found.period_ns - work_ns) / found.period_ns <= published + 0.005
    assert found.peak_stash <= 2 * p * forward


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if row[:2] == (16, 48) else pytest.mark.slow) for row in ZERO_BUBBLE_V],
    ids=lambda row: f"p{row[0]}-m{row[1]}",
)
def test_at_the_memory_of_1f1b_bubbles_are_those_published_for_zb_v(
    row: tuple[int, int, int, int, int, int, float],
) -> None:
    """In the V placement with a stash of p microbatches, held until W."""
    p, m, f, i, w, hop, published = row
    times = even_times(2 * p, (f, i, w), hop)
    found = find_order(p, m, times, stash_limit=p, placement="vee", objective="period", budget=30 * 6 * p * m)
    work_ns = 2 * m * (f + i + w) * 1000
    assert (found.period_ns - work_ns) / found.period_ns <= published + 0.005
    assert found.peak_stash <= p


@pytest.mark.parametrize(("placement", "chunks", "limit"), [("loop", 1, 5), ("loop", 2, 8), ("vee", 2, 4)])
@pytest.mark.parametrize("objective", ["barrier", "period"])
def test_the_report_is_that_of_the_order(placement: str, chunks: int, limit: int, objective: str) -> None:
    """Makespan, period and stash are what an independent walk of the order finds, uneven stages included."""
    num_stages = 8 * chunks
    work_ns = {(op, s): 900 + 13 * s + 70 * k for s in range(num_stages) for k, op in enumerate("FIW")}
    times = WorkTimes(work_ns, 55)
    found = find_order(
        8,
        20,
        times,
        stash_limit=limit,
        placement=placement,
        chunks=chunks,
        objective=objective,
        budget=150_000,
    )
    metrics = measure(found.order, times)
    assert metrics.makespan_ns == found.makespan_ns
    assert metrics.period_ns == found.period_ns
    assert metrics.peak_stash_microbatches <= found.peak_stash <= limit
    assert found.lower_bound_ns <= found.value_ns
    assert found.gap >= 0


def test_the_same_budget_gives_the_same_order() -> None:
    """A search draws on works, not on seconds, and its dice are cast the same way."""
    times = even_times(4, (1.0, 1.2, 0.7), 0.1)
    orders = [find_order(4, 12, times, stash_limit=5, budget=60_000).order for _ in range(2)]
    assert orders[0] == orders[1]


def test_a_given_order_is_never_made_worse() -> None:
    """The search starts from what it is given, and keeps it if it finds nothing better."""
    times = even_times(8, (1.0, 1.0, 0.5), 0.05)
    given = make_order("zb-h2", 8, 24)
    found = find_order(8, 24, times, start_from=[given], portfolio=False, budget=1)
    assert found.makespan_ns <= measure(given, times).makespan_ns


def test_a_given_order_over_the_limit_is_passed_over() -> None:
    """ZB-H2 stashes 2p-1 microbatches; under a limit of p the result does not."""
    times = even_times(4, (1.0, 1.0, 1.0), 0)
    found = find_order(
        4,
        12,
        times,
        stash_limit=4,
        start_from=[make_order("zb-h2", 4, 12)],
        objective="period",
        budget=20_000,
    )
    assert measure(found.order, times).peak_stash_microbatches <= 4


def test_fused_backward_passes_delay_nothing() -> None:
    """B stands where I and W follow each other and nobody waits for I; the clock stays the same."""
    times = even_times(4, (1.0, 1.2, 0.7), 0.1)
    plain, fused = (
        find_order(4, 8, times, stash_limit=4, budget=50_000, fuse=fuse) for fuse in (False, True)
    )
    num_b = sum(int((fused.order.works(rank).op == CODES[Op.B]).sum()) for rank in range(4))
    assert num_b > 0
    assert not any((plain.order.works(rank).op == CODES[Op.B]).any() for rank in range(4))
    assert walk(fused.order, times).makespan_ns == walk(plain.order, times).makespan_ns == plain.makespan_ns


def test_memory_of_both_gradients_is_told_apart() -> None:
    """Where I frees most of the memory, more weight gradients can wait and the period is shorter."""
    times = even_times(8, (2.0, 2.0, 1.0), 0.05)
    stash = find_order(8, 32, times, stash_limit=16, objective="period", budget=200_000)
    freed = find_order(
        8, 32, times, memory=Memory((100,) * 8, (63,) * 8, 1600), objective="period", budget=200_000
    )
    assert freed.period_ns < stash.period_ns
    assert freed.peak_stash <= freed.limit == 1600


def test_no_limit_is_no_limit() -> None:
    """Without a limit nothing idles that need not: the makespan is that of the work bound."""
    found = find_order(4, 8, even_times(4, (1.0, 1.0, 0.5), 0), budget=50_000)
    assert found.limit == 0
    assert found.makespan_ns == found.lower_bound_ns


@pytest.mark.parametrize("placement", ["loop", "vee", "best"])
def test_one_rank_and_one_microbatch_are_pipelines_too(placement: str) -> None:
    """The smallest cases: nothing to overlap, the makespan is the chain."""
    for p, m in ((1, 1), (1, 3), (2, 1)):
        found = find_order(p, m, even_times(2 * p, (1, 1, 1), 0), placement=placement, chunks=2, budget=2000)
        assert found.makespan_ns == found.lower_bound_ns


def test_best_takes_the_better_placement() -> None:
    """Under half the stash of 1F1B a loop of two chunks starves, the V does not."""
    times = even_times(16, (0.5, 0.5, 0.5), 0)
    found = find_order(8, 24, times, stash_limit=5, placement="best", chunks=2, budget=400_000)
    loop = find_order(8, 24, times, stash_limit=5, placement="loop", chunks=2, budget=200_000)
    assert found.placement == "vee"
    assert found.makespan_ns < loop.makespan_ns


@pytest.mark.slow
def test_a_long_step_is_solved_in_half_a_minute() -> None:
    """The default budget for 32 ranks and 256 microbatches; thrice half a minute on a busy machine."""
    found = find_order(32, 256, even_times(32, (10.4, 10.2, 7.7), 0.46), stash_limit=32)
    assert found.gap < 0.01
    assert found.seconds < 90


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "ring"}, "unknown placement"),
        ({"objective": "speed"}, "unknown objective"),
        ({"stash_limit": -1}, "stash limit is negative"),
        ({"chunks": 0}, "number of chunks is below 1"),
        ({"budget": 0}, "number of budget is below 1"),
        ({"chunks": 2}, "no duration for F of stage 4"),
        ({"memory": Memory((1, 1), (0, 0), 4)}, "memory weights do not fit"),
        ({"memory": Memory((1,) * 4, (2,) * 4, 4)}, "I frees more memory"),
    ],
)
def test_nonsense_is_refused(options: dict[str, object], message: str) -> None:
    """A wrong argument is named."""
    with pytest.raises(InvalidInputError, match=message):
        find_order(4, 8, even_times(4, (1, 1, 1), 0), **options)  # type: ignore[arg-type]


def test_a_limit_below_one_microbatch_is_infeasible() -> None:
    """Both chunks of the V must fit at once."""
    with pytest.raises(InfeasibleError, match="memory limit is below one microbatch"):
        find_order(4, 8, even_times(8, (1, 1, 1), 0), placement="vee", stash_limit=0.5)
