"""What the accuracy report says of predicted and measured step times, and which plans it asks for."""

from __future__ import annotations

import pytest

from exactmap.sim.cost.host import (
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
)
from exactmap.sim.plan.check import check_plan
from exactmap.sim.verbs.accuracy import (
    AccuracyReport,
    AccuracyRow,
    accuracy_cases,
    accuracy_sizes,
    drift,
    kendall_tau,
)


def make_host(forward_ns: int, weight_ns: int) -> HostProfile:
    passes = tuple(
        PassSample(
            part="layer",
            step=step,  # type: ignore[arg-type]
            kind="gpt",
            hidden=64,
            heads=4,
            kv_heads=4,
            head_dim=16,
            ffn=256,
            vocab=259,
            seq=64,
            microbatch=2,
            ns=ns,
        )
        for step, ns in (("F", forward_ns), ("I", forward_ns), ("W", weight_ns))
    )
    return HostProfile(
        host=HostFacts(cpu="two cores", num_cores=2, blas="a BLAS", engine="1.0"),
        ranks_at_once=2,
        passes=passes,
        optimizer=(ElementsTime(elements=1000, ns=2000),),
        copies=(BytesTime(bytes=4096, ns=100),),
        awake=HandOver(post_ns=40, wake_ns=100),
        asleep=HandOver(post_ns=8000, wake_ns=20_000),
        instruction_ns=30,
    )


def row(size: str, schedule: str, predicted_ns: int, measured_ns: int) -> AccuracyRow:
    return AccuracyRow(size, schedule, 4, predicted_ns, measured_ns, measured_ns - 1, measured_ns + 1)


REPORT = AccuracyReport(
    rows=(
        row("small", "gpipe", 110, 100),
        row("small", "1f1b", 95, 100),
        row("small", "zb-h1", 98, 80),
        row("large", "gpipe", 900, 1000),
        row("large", "1f1b", 800, 900),
    ),
    host=make_host(1000, 500),
    num_steps=20,
    drift=0.0,
)


def test_errors_are_relative_to_what_was_measured() -> None:
    """+10, -5, +22.5, -10 and -11.1 percent: the middle is 10, the worst 22.5."""
    assert [entry.error for entry in REPORT.rows] == pytest.approx([0.1, -0.05, 0.225, -0.1, -1 / 9])
    assert REPORT.median_error == pytest.approx(0.1)
    assert REPORT.p90_error == REPORT.worst_error == pytest.approx(0.225)
    assert REPORT.bias == pytest.approx(-0.05)


def test_nine_of_ten_plans_stay_within_the_p90_error() -> None:
    """Of ten errors of 1 to 10 percent the ninth."""
    rows = tuple(row("one", "gpipe", 1000 + 10 * number, 1000) for number in range(1, 11))

    report = AccuracyReport(rows, REPORT.host, 20, 0.0)

    assert report.p90_error == pytest.approx(0.09)


def test_regret_is_what_the_predicted_winner_loses() -> None:
    """Small: 1f1b is predicted fastest, zb-h1 runs fastest, a quarter faster. Large: no regret."""
    assert REPORT.regret("small") == pytest.approx(100 / 80 - 1)
    assert REPORT.regret("large") == 0


def test_orders_are_compared_within_a_size() -> None:
    """Small: gpipe after zb-h1 on both sides, 1f1b before zb-h1 on one; its tie with gpipe is no pair."""
    assert REPORT.tau("small") == pytest.approx((1 - 1) / (3 * 2) ** 0.5)
    assert REPORT.tau("large") == 1


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 2 / 3),
        ([1, 1, 2], [1, 2, 3], 2 / 6**0.5),
        ([1, 1, 1], [1, 2, 3], 0.0),
    ],
)
def test_kendalls_tau_b(a: list[float], b: list[float], tau: float) -> None:
    """Values by hand; ties shrink the number of pairs of their side (Kendall 1945)."""
    assert kendall_tau(a, b) == pytest.approx(tau)
    assert kendall_tau(b, a) == pytest.approx(tau)


def test_drift_is_the_median_change_of_the_passes() -> None:
    """F and I ten percent slower, W twice as slow: ten percent."""
    assert drift(make_host(1000, 500), make_host(1100, 1000)) == pytest.approx(0.1)


def test_the_document_names_every_plan() -> None:
    """As the page does: rows, and what they come to by size."""
    document = REPORT.to_dict()

    assert next(iter(document)) == "schema_version"
    assert document["num_plans"] == 5
    assert document["median_error"] == REPORT.median_error
    assert [entry["size"] for entry in document["sizes"]] == ["small", "large"]  # type: ignore[attr-defined]


def test_there_are_24_valid_plans_and_each_size_trains_one_batch() -> None:
    """Four schedules, three numbers of microbatches, two models, p = 2: orders are of equal work."""
    cases = accuracy_cases()

    assert len({case.name for case in cases}) == 24
    batches = {size.name: size.batch * size.seq for size in accuracy_sizes()}
    for case in cases:
        check_plan(case.plan)
        train = case.plan.train
        assert case.plan.mesh.pp == 2
        assert train.m == case.num_microbatches
        assert train.m * train.microbatch * train.seq == batches[case.size]
    assert {case.schedule for case in cases} == {"gpipe", "1f1b", "interleaved-1f1b", "zb-h1"}
