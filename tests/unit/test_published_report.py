"""What `validate` writes: a record that reads back, tables between the marks of a page, a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from row_cases import row

from exactmap.errors import CheckFailedError, InvalidInputError
from exactmap.sim.published.accuracy import Accuracy, judge_published
from exactmap.sim.published.bars import bars_of
from exactmap.sim.report.accuracy import draw_accuracy, write_accuracy_page
from exactmap.sim.verbs import validate as verb

_BEGIN, _END = "<!-- published: begin -->", "<!-- published: end -->"


def _small() -> Accuracy:
    """Six runs of one set, one of them without a price."""
    rows = [
        row(id=f"r{number}", step_time_s="10", gbs=str(128 * number), n_microbatches="")
        for number in range(1, 6)
    ]
    return judge_published([*rows, row(id="none", step_time_s="10", gpu="TPUv4")])


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> Accuracy:
    """`validate` judges these instead of all published rows."""
    accuracy = _small()
    monkeypatch.setattr(verb, "judge_published", lambda: accuracy)
    return accuracy


def test_a_record_that_was_just_written_passes_its_own_gate(few_rows: Accuracy, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    first = verb.validate(record=record)
    again = verb.validate(gate=record, record=tmp_path / "again.json")

    assert again.problems == ()
    assert (tmp_path / "again.json").read_bytes() == record.read_bytes()
    assert first.to_dict() == again.to_dict()
    assert json.loads(record.read_bytes())["predicted_ids"] == sorted(each.case.id for each in few_rows.rows)


def test_a_record_does_not_move_with_the_last_bit(few_rows: Accuracy, tmp_path: Path) -> None:
    verb.validate(record=tmp_path / "record.json")
    part = json.loads((tmp_path / "record.json").read_bytes())["held_out"]["gpu"]["H100"]

    assert part["n"] == len(few_rows.held_out())
    assert all(
        len(f"{abs(value):.12g}".replace("0.", "").strip("0")) <= 6
        for value in part.values()
        if isinstance(value, float)
    )


@pytest.mark.usefixtures("few_rows")
def test_what_got_worse_is_an_error_that_names_it_and_the_record_is_still_written(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    verb.validate(record=record)
    better = json.loads(record.read_bytes())
    better["held_out"]["set"]["mine"]["mape"] /= 2
    better["predicted_ids"].append("gone")
    record.write_text(json.dumps(better), encoding="utf-8")
    with pytest.raises(CheckFailedError, match="gone is no longer predicted; mine: mean error"):
        verb.validate(gate=record, record=tmp_path / "new.json")
    assert (tmp_path / "new.json").exists()


def test_a_broken_record_is_said_before_anything_is_priced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Accuracy:
        raise AssertionError

    monkeypatch.setattr(verb, "judge_published", never)
    with pytest.raises(InvalidInputError, match="record of accuracy"):
        verb.validate(gate=tmp_path / "none.json")


def test_tables_go_between_the_marks_and_leave_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n{_BEGIN}\nold\n{_END}\ntail\n", encoding="utf-8")
    accuracy = _small()
    write_accuracy_page(page, accuracy, bars_of(accuracy))
    text = page.read_text(encoding="utf-8")
    before = text
    write_accuracy_page(page, accuracy, bars_of(accuracy))

    assert page.read_text(encoding="utf-8") == before
    assert text.startswith(f"# Head\n{_BEGIN}\n5 results predicted, 1 not; ")
    assert text.endswith(f"{_END}\ntail\n")
    assert "old" not in text
    assert "| none | gpu: no such GPU is known" in text
    # Every table has as many cells in each row as in its head.
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Head\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no marked region"):
        write_accuracy_page(page, _small(), [])
    assert page.read_text(encoding="utf-8") == "# Head\n"


def test_the_picture_is_a_picture_and_the_same_every_time(tmp_path: Path) -> None:
    accuracy = _small()
    for name in ("a.png", "b.png"):
        draw_accuracy(tmp_path / name, accuracy)
    drawn = (tmp_path / "a.png").read_bytes()

    assert drawn.startswith(b"\x89PNG")
    assert drawn == (tmp_path / "b.png").read_bytes()
