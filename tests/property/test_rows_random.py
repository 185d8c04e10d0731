"""Tables of runs of any kind: one line for each row, a price or a reason, never anything else."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_cases import COMPLETE, ODD_CELLS, PART_COLUMNS, seconds
from typer.testing import CliRunner

from exactmap.errors import ExactmapError
from exactmap.sim.cli.main import app
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.batch import OUTPUT_COLUMNS, read_rows, result_line
from exactmap.sim.published.row import Row

_PACKAGED = tuple(dict(each.values) for each in published_and_b200())
_COLUMNS = tuple(sorted({name for values in _PACKAGED[:: len(_PACKAGED) - 1] for name in values}))

_numbers = st.one_of(
    st.integers(-2, 300).map(str),
    st.integers(-(10**12), 10**12).map(str),
    st.sampled_from([1, 2, 4, 8, 16, 64, 128, 4096, 8192, 10**6, 10**9]).map(str),
    st.floats().map(repr),
)
_cells = st.one_of(st.sampled_from(ODD_CELLS), _numbers, st.text(st.characters(codec="utf-8"), max_size=20))


@st.composite
def _mutated(draw: st.DrawFn) -> dict[str, str]:
    """A packaged row with some cells changed, taken from another row, swapped, or gone."""
    values = dict(draw(st.sampled_from(_PACKAGED)))
    for _ in range(draw(st.integers(1, 5))):
        column = draw(st.sampled_from(_COLUMNS))
        match draw(st.integers(0, 4)):
            case 0:
                values.pop(column, None)
            case 1:
                values[column] = draw(st.sampled_from(_PACKAGED)).get(column, "")
            case 2:
                other = draw(st.sampled_from(_COLUMNS))
                values[column], values[other] = values.get(other, ""), values.get(column, "")
            case 3 if values.get("flags") is not None:
                values["flags"] += " " + draw(_cells)
            case _:
                values[column] = draw(_cells)
    return values


def _check(line: dict[str, str]) -> None:
    assert tuple(line) == OUTPUT_COLUMNS
    if line["status"] == "refused":
        assert line["reason"]
        assert line["predicted_s"] == ""
        return
    step = seconds(line, "predicted_s")

    assert line["status"] == "predicted"
    assert line["reason"] == ""
    assert 0.0 < seconds(line, "low_s") <= step <= seconds(line, "high_s") < float("inf")
    assert sum(seconds(line, name) for name in PART_COLUMNS) == pytest.approx(step, rel=1e-4)
    assert min(seconds(line, name) for name in PART_COLUMNS) >= 0.0
    assert 0.0 < float(line["mem_gib"]) < float("inf")


@settings(max_examples=500)
@given(_mutated())
def test_a_row_of_a_known_run_with_broken_cells_has_a_price_or_a_reason(values: dict[str, str]) -> None:
    line = result_line(Row(values))

    assert line["id"] == values.get("id", "").strip()
    _check(line)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(sorted(COMPLETE)), _cells, max_size=12))
def test_a_row_of_anything_has_a_price_or_a_reason(cells: dict[str, str]) -> None:
    _check(result_line(Row(COMPLETE | cells)))
    _check(result_line(Row(cells)))


@settings(max_examples=150)
@given(st.lists(st.lists(_cells, max_size=9), max_size=6), st.integers(0, 3), st.randoms())
def test_a_table_of_anything_is_read_or_refused(rows: list[list[str]], spare: int, random: object) -> None:
    """With its columns there: a line for each row that is not blank."""
    head = ["gpu", "n_gpus", "hidden", "layers", "seq_len", "gbs", *["", "id", "model"][:spare]]
    random.shuffle(head)  # type: ignore[attr-defined]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([head, *rows])
    try:
        found = list(read_rows("t.csv", text.getvalue()))
    except ExactmapError:
        return
    assert len(found) == sum(bool(cells) for cells in rows)
    for each in found:
        _check(result_line(each))


@settings(max_examples=300)
@given(st.text(st.characters(codec="utf-8"), max_size=200), st.booleans())
def test_text_of_any_kind_is_a_table_or_an_error_of_ours(text: str, headed: bool) -> None:
    head = "gpu,n_gpus,hidden,layers,seq_len,gbs\n" if headed else ""
    try:
        found = list(read_rows("t.csv", head + text))
    except ExactmapError:
        return
    for each in found:
        _check(result_line(each))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=60), values=_mutated(), headed=st.booleans(), as_json=st.booleans())
def test_the_command_prints_a_result_or_a_message_and_exits_as_documented(
    noise: bytes, values: dict[str, str], headed: bool, as_json: bool, tmp_path: Path
) -> None:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerow(values)
    path = tmp_path / "rows.csv"
    path.write_bytes((table.getvalue().encode("utf-8") if headed else b"") + noise)
    done = CliRunner().invoke(app, ["predict", str(path), *(["--json"] if as_json else [])])

    assert done.exit_code in (0, 3), done.output
    assert "Traceback" not in done.output
    assert "a bug in exactmap" not in done.output
    assert done.output
