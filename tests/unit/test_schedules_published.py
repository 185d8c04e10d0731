"""Orders against published numbers, which stand in tests/golden/published with their sources.

Every number is met to its last digit; where a published script differs from its paper's model, the script's
rule is rebuilt here and the faithful value is tested beside it.
"""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import pytest

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.metrics import OrderMetrics, measure
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

PUBLISHED = Path(__file__).parents[1] / "golden" / "published"
UNIT_NS = 1_000_000


def rows_of(name: str) -> list[dict[str, str]]:
    lines = (PUBLISHED / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t"))


def label(row: dict[str, str]) -> str:
    return " ".join(list(row.values())[:6])


def even_times(num_stages: int, forward: int, gradient: int, weight: int, hop: int) -> WorkTimes:
    per_op = (("F", forward), ("I", gradient), ("W", weight))
    return WorkTimes({(op, stage): ns for op, ns in per_op for stage in range(num_stages)}, hop)


def ns_of(row: dict[str, str], unit_ns: int, *columns: str) -> list[int]:
    return [int(Fraction(row[column]) * unit_ns) for column in columns]


def rate(metrics_ns: int, num_microbatches: int, passes_ns: int) -> str:
    """Idle share of a period as the papers print it."""
    return f"{(metrics_ns - num_microbatches * passes_ns) / metrics_ns:.4f}"[1:]


@pytest.mark.parametrize("row", rows_of("makespans"), ids=label)
def test_makespan_period_and_stash_are_the_published_ones(row: dict[str, str]) -> None:
    p, m, chunks = int(row["p"]), int(row["m"]), int(row["chunks"])
    order = make_order(row["order"], p, m, chunks)
    share, _, of = row["braid_share"].partition("/")
    (hop_ns,) = ns_of(row, UNIT_NS, "c")
    unit = WorkTimes.unit(order.num_stages, UNIT_NS // chunks, hop_ns)

    got = measure(order, WorkTimes(unit.work_ns, hop_ns, float(share) / float(of or 1)))

    assert [got.makespan_ns, got.period_ns] == ns_of(row, UNIT_NS, "makespan", "period")
    assert got.peak_stash_microbatches == float(row["stash"])


@pytest.mark.parametrize("row", rows_of("zero_bubble"), ids=label)
def test_bubble_rates_of_zero_bubbles_table_5(row: dict[str, str]) -> None:
    p, m = int(row["p"]), int(row["m"])
    forward, gradient, weight, hop = ns_of(row, UNIT_NS, "F", "I", "W", "c")

    for name in ("1f1b", "zb-h1", "zb-h2"):
        times = even_times(p, forward, gradient, weight, hop)
        period_ns = measure(make_order(name, p, m), times).period_ns
        assert rate(period_ns, m, forward + gradient + weight) == row[name], name


@pytest.mark.parametrize("row", rows_of("zero_bubble"), ids=label)
def test_the_interleaved_column_of_table_5_with_its_hops_and_with_all_hops(row: dict[str, str]) -> None:
    """The published script lets a hop cost time only for the first microbatch of each group of p."""
    p, m, chunks = int(row["p"]), int(row["m"]), (int(row["layers"]) + 2) // int(row["p"])
    forward, gradient, weight, hop = ns_of(row, UNIT_NS, "F", "I", "W", "c")
    passes_ns = chunks * (forward + gradient + weight)
    # Times of a chunk are whole nanoseconds: multiply all by v.
    times = even_times(p * chunks, forward, gradient, weight, hop * chunks)
    order = make_order("interleaved-1f1b", p, m, chunks)

    of_all_hops = rate(measure(order, times).period_ns, m, passes_ns)
    of_few_hops = rate(period_with_few_hops_ns(order, times), m, passes_ns)

    assert of_few_hops == row["interleaved"]
    assert of_all_hops == row["interleaved_every_hop"]


def period_with_few_hops_ns(order: Order, times: WorkTimes) -> int:
    """Period of an order of F and B whose hops are free but for microbatches 0, p, 2p, ..."""
    p, last = order.num_ranks, order.num_stages - 1
    backward_ns = times.work_ns["I", 0] + times.work_ns["W", 0]
    made: dict[tuple[Op, int, int], int] = {}
    at, now, first = [0] * p, [0] * p, [-1] * p
    works = [list(order.works(rank)) for rank in range(p)]
    moved = True
    while moved:
        moved = False
        for rank in range(p):
            while at[rank] < len(works[rank]):
                op, stage, number, _, _ = works[rank][at[rank]]
                source = stage - 1 if op is Op.F else stage + 1
                arrived = 0
                if 0 <= source <= last:
                    if (op, source, number) not in made:
                        break
                    arrived = made[op, source, number] + (times.hop_ns if number % p == 0 else 0)
                start = max(now[rank], arrived)
                now[rank] = start + (times.work_ns["F", 0] if op is Op.F else backward_ns)
                first[rank] = start if first[rank] < 0 else first[rank]
                made[op, stage, number] = now[rank]
                at[rank] += 1
                moved = True
    return max(end - start for start, end in zip(first, now, strict=True))


@pytest.mark.parametrize("row", rows_of("zb_v"), ids=label)
def test_bubble_rates_by_the_profiles_of_zb_v(row: dict[str, str]) -> None:
    p, m = int(row["p"]), int(row["m"])
    forward, gradient, weight, hop = ns_of(row, 1000, "f", "i", "w", "c")
    passes_ns = 2 * (forward + gradient + weight)
    whole = even_times(p, 2 * forward, 2 * gradient, 2 * weight, hop)
    chunked = even_times(2 * p, forward, gradient, weight, hop)

    for name in ("1f1b", "zb-h1", "zb-h2"):
        assert rate(measure(make_order(name, p, m), whole).period_ns, m, passes_ns) == row[name], name
    interleaved = period_with_few_hops_ns(make_order("interleaved-1f1b", p, m, 2), chunked)
    zb_v = measure(make_order("zb-v", p, m, 2), chunked)
    assert rate(interleaved, m, passes_ns) == row["interleaved"]
    assert rate(zb_v.period_ns, m, passes_ns) == row["zb-v_period"]
    assert rate(zb_v.makespan_ns, m, passes_ns) == row["zb-v_barrier"]
    # The published order was searched for each profile; the fixed one is near it, and better for some.
    assert abs(float(row["zb-v_searched"]) - zb_v.bubble_steady) < 0.0016


@pytest.mark.parametrize("row", rows_of("who_wins"), ids=label)
def test_who_wins_when_with_every_bubble(row: dict[str, str]) -> None:
    parts = [cell.replace("=", "/").split("/") for cell in row["rates"].split()]
    entries = [(name, int(chunks), idle) for name, chunks, idle in parts]
    p, m = 8, int(row["m"])
    # A unit that 8 chunks divide.
    forward, gradient, weight, hop = ns_of(row, 16_000, "F", "I", "W", "c")
    got = {}
    for name, chunks, _ in entries:
        times = even_times(p * chunks, forward // chunks, gradient // chunks, weight // chunks, hop)
        got[name, chunks] = measure(make_order(name, p, m, chunks), times).bubble_barrier

    assert [f"{got[name, chunks]:.3f}"[1:] for name, chunks, _ in entries] == [idle for *_, idle in entries]
    assert list(got.values()) == pytest.approx(sorted(got.values()), abs=1e-12)


def metrics_of(name: str, p: int, m: int, chunks: int = 1, hop: float = 0.0) -> OrderMetrics:
    order = make_order(name, p, m, chunks)
    return measure(order, WorkTimes.unit(order.num_stages, UNIT_NS // chunks, round(hop * UNIT_NS)))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 33])
def test_v_half_and_v_min_keep_to_their_share_of_the_stash(p: int) -> None:
    """(p+2) div 2 and (p+4) div 3 microbatches, arXiv:2405.15362: 3, 5, 9 and 2, 4, 6 of 4, 8, 16 ranks."""
    half, least = metrics_of("v-half", p, 4 * p, 2), metrics_of("v-min", p, 4 * p, 2)

    assert half.peak_stash_microbatches == (p + 2) // 2
    assert least.peak_stash_microbatches == (p + 4) // 3


@pytest.mark.parametrize("name", ["v-half", "v-min"])
@pytest.mark.parametrize("p", [3, 4, 6, 8, 13, 16])
def test_a_repeated_pattern_takes_six_slots_per_microbatch(name: str, p: int) -> None:
    """Once it runs, one microbatch more costs its six passes and nothing else."""
    short, long = metrics_of(name, p, 4 * p, 2), metrics_of(name, p, 4 * p + 10, 2)

    assert long.makespan_ns - short.makespan_ns == 10 * 6 * UNIT_NS // 2
    assert long.period_ns - short.period_ns == 10 * 6 * UNIT_NS // 2


def test_v_half_and_v_min_repeated_without_tuning() -> None:
    """Of 8 ranks and 64 microbatches: .063 and .066 idle, against .099 of 1F1B.

    V-Min idles in every microbatch where passes differ or hops cost: .22 at F:I:W = 2:2:1, .20 at c = .1 F.
    """
    half, least, plain = (
        metrics_of("v-half", 8, 64, 2),
        metrics_of("v-min", 8, 64, 2),
        metrics_of("1f1b", 8, 64),
    )
    uneven = measure(make_order("v-min", 8, 64, 2), even_times(16, 200, 200, 100, 0))
    hops = metrics_of("v-min", 8, 64, 2, hop=0.1)

    assert (f"{half.bubble_barrier:.3f}", f"{least.bubble_barrier:.3f}") == ("0.063", "0.066")
    assert f"{plain.bubble_barrier:.3f}" == "0.099"
    assert f"{uneven.bubble_barrier:.2f}" == "0.22"
    assert f"{hops.bubble_barrier:.2f}" == "0.20"


def test_orders_that_send_ahead_hide_hops() -> None:
    """8 ranks, 64 microbatches, hops of a fifth of F: the makespans of four orders with one chunk."""
    names = ("1f1b", "zb-h1", "zb-h2", "eager-1f1b")

    got = [metrics_of(name, 8, 64, hop=0.2).makespan_ns for name in names]

    assert got == [237_800_000, 204_600_000, 200_400_000, 215_800_000]


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 10), (8, 16), (8, 24)])
@pytest.mark.parametrize("share", [1.0, 2.5 / 3, 0.75])
def test_dualpipe_idles_as_its_authors_say(p: int, m: int, share: float) -> None:
    """(p/2-1)(F&B + B - 3W) on the ranks that braid most, the innermost two, and less on the others.

    Folded onto half of the ranks it is the same. The stash is p+1 stages.
    """
    idle_ns = (p // 2 - 1) * (round(3 * 1200 * share) + 2400 - 3 * 1200)
    times = WorkTimes(WorkTimes.unit(p, 1200).work_ns, 0, share)
    both = make_order("dualpipe", p, m)
    folded = make_order("dualpipe-v", p // 2, m // 2, 2)

    for order, inner in ((both, p // 2), (folded, p // 2 - 1)):
        idle = idle_per_rank_ns(order, times)
        assert idle[inner] == max(idle) == idle_ns
    assert measure(both, times).peak_stash_microbatches == p + 1
    assert measure(folded, times).peak_stash_microbatches == (p + 1) / 2


def idle_per_rank_ns(order: Order, times: WorkTimes) -> list[int]:
    timeline = walk(order, times)
    busy = [
        sum(dict(zip(starts.tolist(), (ends - starts).tolist(), strict=True)).values())
        for starts, ends in zip(timeline.start_ns, timeline.end_ns, strict=True)
    ]
    return [timeline.makespan_ns - each for each in busy]


@pytest.mark.parametrize(("p", "m"), [(2, 2), (4, 4), (4, 12), (8, 16)])
def test_chimera_leaves_p_minus_2_slots_idle(p: int, m: int) -> None:
    """Bubble (p-2)/(2m+p-2) where F = B, for whole units of p microbatches."""
    metrics = measure(make_order("chimera", p, m), even_times(p, 1000, 600, 400, 0))

    assert metrics.bubble_barrier == pytest.approx((p - 2) / (2 * m + p - 2), abs=1e-12)
    assert p / 2 <= metrics.peak_stash_microbatches <= p


@pytest.mark.parametrize(("p", "m", "chunks"), [(2, 2, 2), (4, 4, 2), (4, 12, 2), (4, 8, 4), (8, 16, 6)])
def test_hanayo_idles_less_the_more_waves(p: int, m: int, chunks: int) -> None:
    """2(p-1) of 2vm + 2(p-1) slots idle where F = B, for whole units of p microbatches."""
    metrics = measure(make_order("hanayo", p, m, chunks), even_times(p * chunks, 1000, 600, 400, 0))

    assert metrics.bubble_barrier == pytest.approx((p - 1) / (chunks * m + p - 1), abs=1e-12)
    assert metrics.peak_stash_microbatches <= p


def test_a_period_counts_from_a_ranks_own_start_to_its_own_end() -> None:
    """ZB-H2 ends no earlier than ZB-H1, but no rank of it waits between its first and its last pass."""
    order = make_order("zb-h2", 4, 8)
    timeline = walk(order, WorkTimes.unit(4, UNIT_NS))

    spans = [
        int(ends[-1] - starts[0]) for starts, ends in zip(timeline.start_ns, timeline.end_ns, strict=True)
    ]

    assert spans == [24 * UNIT_NS] * 4
    assert metrics_of("zb-h2", 4, 8).bubble_steady == 0
