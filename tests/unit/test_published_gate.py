"""What fails when predictions get worse: parts, rows, and records that are none; and the bars."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from row_cases import row

from exactmap.errors import InvalidInputError
from exactmap.sim.published.accuracy import Accuracy, Judged, Refused, judge_published
from exactmap.sim.published.bars import Bar, bars_of
from exactmap.sim.published.gate import gate_problems, read_record
from exactmap.sim.published.statistics import Case


def _judged(name: str, error: float, *, of: str = "one", gpu: str = "H100", fitted: bool = False) -> Judged:
    case = Case(name, 1.0, 1.0 + error, 0.8, 1.2)
    return Judged(case, of, gpu, "dense", fitted, "group")


def _accuracy(one: float, two: float) -> Accuracy:
    """Two sets on two GPU types, with an error each."""
    rows = [_judged(f"a{number}", one) for number in range(4)]
    rows += [_judged(f"b{number}", two, of="two", gpu="B200") for number in range(4)]
    return Accuracy(tuple(rows), ())


def _record(accuracy: Accuracy, folder: Path) -> dict[str, object]:
    path = folder / "record.json"
    path.write_text(json.dumps(accuracy.to_dict()), encoding="utf-8")
    return read_record(path)


def test_the_same_predictions_pass(tmp_path: Path) -> None:
    accuracy = _accuracy(0.05, 0.10)

    assert gate_problems(_record(accuracy, tmp_path), accuracy) == []
    assert gate_problems(_record(accuracy, tmp_path), _accuracy(0.04, 0.10)) == []


def test_a_part_that_is_worse_by_more_than_a_tenth_fails_by_set_and_by_gpu(tmp_path: Path) -> None:
    record = _record(_accuracy(0.10, 0.10), tmp_path)

    assert gate_problems(record, _accuracy(0.10, 0.1099)) == []
    problems = gate_problems(record, _accuracy(0.10, 0.112))
    assert [problem.split(":")[0] for problem in problems] == ["two", "B200", "B200 dense"]
    assert "mean error 11.2%, was 10.0%" in problems[0]


def test_half_a_percent_more_is_forgiven_only_where_errors_are_small(tmp_path: Path) -> None:
    record = _record(_accuracy(0.01, 0.10), tmp_path)

    assert gate_problems(record, _accuracy(0.0149, 0.10)) == []
    assert gate_problems(record, _accuracy(0.016, 0.10))


def test_rows_that_were_fitted_do_not_count(tmp_path: Path) -> None:
    base = _accuracy(0.10, 0.10)
    worse = replace(base, rows=(*base.rows, _judged("f", 5.0, fitted=True)))

    assert gate_problems(_record(base, tmp_path), worse) == []


def test_a_row_that_stops_predicting_fails_and_is_named(tmp_path: Path) -> None:
    before = _accuracy(0.10, 0.10)
    after = replace(before, rows=before.rows[1:], refused=(Refused("a0", "one", "why"),))

    assert gate_problems(_record(before, tmp_path), after) == ["a0 is no longer predicted"]


def test_a_new_part_is_no_problem(tmp_path: Path) -> None:
    before = _accuracy(0.10, 0.10)
    after = replace(before, rows=(*before.rows, _judged("c", 0.9, of="three", gpu="GB300")))

    assert gate_problems(_record(before, tmp_path), after) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"text"',
        "{}",
        "[" * 100_000,
        '{"held_out": [], "predicted_ids": []}',
        '{"held_out": {"set": []}, "predicted_ids": []}',
        '{"held_out": {"set": {"one": {}}}, "predicted_ids": []}',
        '{"held_out": {"set": {"one": 3}}, "predicted_ids": []}',
        '{"held_out": {"set": {"one": {"mape": "low"}}}, "predicted_ids": []}',
        '{"held_out": {"set": {"one": {"mape": NaN}}}, "predicted_ids": []}',
        '{"held_out": {}, "predicted_ids": {}}',
        '{"held_out": {}, "predicted_ids": [[1]]}',
    ],
)
def test_a_record_that_is_none_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"record\.json.*not a record of accuracy") as caught:
        read_record(path)
    assert "--record" in str(caught.value)


def test_a_record_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("none", ".", "bytes"):
        with pytest.raises(InvalidInputError):
            read_record(tmp_path / name)


def test_a_bar_is_reached_from_its_side() -> None:
    assert Bar("error", 0.08, 0.08).reached
    assert not Bar("error", 0.08, 0.081).reached
    assert Bar("tau", 0.8, 0.8, at_least=True).reached
    assert not Bar("tau", 0.8, 0.79, at_least=True).reached


def _found(accuracy: Accuracy) -> dict[str, Bar]:
    return {bar.what: bar for bar in bars_of(accuracy)}


def test_bars_look_at_rows_that_nothing_was_fitted_on() -> None:
    rows = [_judged(f"h{number}", 0.05) for number in range(9)]
    rows += [_judged(f"f{number}", 0.50, fitted=True) for number in range(9)]
    found = _found(Accuracy(tuple(rows), ()))

    assert found["H100: median error"].found == pytest.approx(0.05)
    assert found["H100: 90th percentile of the error"].found == pytest.approx(0.05)
    assert found["H100: median error"].limit == 0.08


def test_a_refused_row_lowers_the_share_of_its_set() -> None:
    rows = tuple(_judged(f"h{number}", 0.05) for number in range(8))
    refused = (Refused("x", "one", ""), Refused("y", "one", ""))
    found = _found(Accuracy(rows, refused))

    assert found["rows predicted, lowest share of a set"].found == pytest.approx(0.8)
    assert not found["rows predicted, lowest share of a set"].reached
    assert not found["rows predicted, share of all"].reached


def test_memory_has_bars_of_its_own() -> None:
    rows = tuple(
        replace(_judged(f"m{number}", 0.0, of="b200_8gpu", gpu="B200"), memory=(100.0, 100.0 + number))
        for number in (-1, 1, 3.99)
    )
    found = _found(Accuracy(rows, ()))["b200_8gpu: mean error of the memory"]

    assert found.found == pytest.approx(0.02, rel=0.01)
    assert found.reached


def test_intervals_need_twenty_rows_before_they_are_judged() -> None:
    for number in (19, 20):
        rows = tuple(_judged(f"h{each}", 0.05) for each in range(number))
        named = any("intervals" in what for what in _found(Accuracy(rows, ())))

        assert named == (number == 20)


def test_rows_without_a_step_time_are_not_judged_and_those_without_a_price_are_listed() -> None:
    none = row(id="none", step_time_s="")
    refused = row(id="refused", set="mine", step_time_s="3.0", gpu="TPUv4")
    priced = row(id="priced", set="mine", step_time_s="3.0", mem_gib="60")
    found = judge_published([none, refused, priced])

    assert [each.case.id for each in found.rows] == ["priced"]
    assert [(each.id, each.set_name) for each in found.refused] == [("refused", "mine")]
    assert "gpu: no such GPU" in found.refused[0].reason
    assert found.share_predicted() == {"mine": 0.5}
    assert found.rows[0].memory is not None
    assert found.rows[0].memory[0] == 60.0
