"""Results as documents: written and read without loss, and refused in any other form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.report.result import RankResult, StepResult, read_result

RESULT = StepResult(
    kind="prediction",
    source="replay",
    plan_sha256="ab" * 32,
    plan_path="a.plan",
    step_time_ns=10_000,
    period_ns=9_000,
    bubble=0.25,
    steady_bubble=0.125,
    tokens_per_step=4096,
    num_gpus=2,
    ranks=(
        RankResult(0, 0, 10_000, {"F": 3000, "B": 5000}, {"WR": 500}, 1 << 20),
        RankResult(1, 0, 9_500, {"F": 3100, "B": 4900, "OPT": 10}, {"WR": 700, "WC": 20}, 1 << 21),
    ),
    basis="test",
    model_flop_per_step=8_000_000,
    peak_flop_per_s=1e12,
    band=(-0.1, 0.2),
    trace="trace.tsv",
    extra={"note": ["anything"]},
)

FIELDS = sorted(RESULT.to_dict())
READ_FIELDS = sorted(set(FIELDS) - {"tokens_per_s", "peak_bytes"})


def _written(path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    document = json.loads(RESULT.to_json())
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _outcome(path: Path) -> StepResult | str:
    """The result, or the message of its refusal, which names the file."""
    try:
        return read_result(path)
    except InvalidInputError as error:
        text = str(error)
    return text if str(path) in text else pytest.fail(text)


def test_round_trip(tmp_path: Path) -> None:
    assert read_result(_written(tmp_path / "r.json")) == RESULT


def test_round_trip_without_a_band(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(replace(RESULT, band=None, kind="execution").to_json(), encoding="utf-8")

    assert read_result(tmp_path / "r.json") == replace(RESULT, band=None, kind="execution")


def test_version_comes_first() -> None:
    assert list(RESULT.to_dict())[:2] == ["schema_version", "kind"]


def test_derived_quantities() -> None:
    """10 us a step: 409.6 million tokens a second, and 8e6 FLOPs on two ranks of 1e12 a second each."""
    assert RESULT.tokens_per_s == pytest.approx(409.6e6)
    assert RESULT.peak_bytes == 1 << 21
    assert RESULT.model_flop_utilisation == pytest.approx(8e6 / 10e-6 / 2e12)
    assert RESULT.total_ns(waiting=False) == {"F": 6100, "B": 9900, "OPT": 10}
    assert RESULT.total_ns(waiting=True) == {"WR": 1200, "WC": 20}


def test_nothing_is_divided_by_zero() -> None:
    still = replace(RESULT, step_time_ns=0, ranks=())

    assert (still.tokens_per_s, still.model_flop_utilisation, still.peak_bytes) == (0.0, 0.0, 0)
    assert replace(RESULT, peak_flop_per_s=0.0).model_flop_utilisation == 0.0


@pytest.mark.parametrize("field", READ_FIELDS)
def test_each_field_is_needed(tmp_path: Path, field: str) -> None:
    path = _written(tmp_path / "r.json", lambda document: document.pop(field))
    with pytest.raises(InvalidInputError) as caught:
        read_result(path)

    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", READ_FIELDS)
@pytest.mark.parametrize("value", [True, -1, [], {"a": "b"}, "\0/", 1e999, 10**400])
def test_each_field_has_its_type(tmp_path: Path, field: str, value: object) -> None:
    """A value of another type is an error; where the type is right, so is the result."""
    path = _written(tmp_path / "r.json", lambda document: document.__setitem__(field, value))
    found = _outcome(path)
    free = {"bubble", "steady_bubble", "peak_flop_per_s", "extra", "ranks", "plan_path", "basis", "source"}

    assert isinstance(found, StepResult) <= (field in free)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step_time_ns", 1.5, "step_time_ns: a field is wrong: got 1.5, expected a whole number"),
        ("step_time_ns", None, "step_time_ns: a field is wrong: got None"),
        ("bubble", "much", "bubble: a field is wrong: got 'much', expected a number"),
        ("plan_sha256", "abc", "plan_sha256: a field is wrong: got 'abc', expected 64 hexadecimal digits"),
        ("band", [1], r"band: a field is wrong: got \[1\], expected two numbers, or null"),
        ("band", ["a", "b"], "low: a field is wrong: got 'a', expected a number"),
        ("trace", "../trace.tsv", "trace: a field is wrong.*the name of a file beside the document"),
        ("trace", "..", "trace: a field is wrong"),
        ("ranks", [3], "not a JSON object: got int"),
        ("ranks", [{}], "pp: a field is missing"),
        ("schema_version", 2, "not a result of this version: got kind 'prediction' version 2"),
        ("schema_version", True, "not a result of this version"),
        ("kind", "comparison", "not a result of this version: got kind 'comparison' version 1"),
        ("kind", ["prediction"], "not a result of this version"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    path = _written(tmp_path / "r.json", lambda document: document.__setitem__(field, value))
    with pytest.raises(InvalidInputError, match=message):
        read_result(path)


def test_times_of_ranks_are_whole_numbers(tmp_path: Path) -> None:
    path = _written(tmp_path / "r.json", lambda document: document["ranks"][1]["busy_ns"].update(F="3"))
    with pytest.raises(InvalidInputError, match="F: a field is wrong: got '3'"):
        read_result(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "NaN", '{"schema_version": NaN}', "[" * 100_000]
)
def test_other_texts(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError):
        read_result(tmp_path / "r.json")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_bytes(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes change, the answer is a result or an error with the file's name."""
    content = bytearray(RESULT.to_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "r.json"
    path.write_bytes(bytes(content))

    assert _outcome(path) is not None
