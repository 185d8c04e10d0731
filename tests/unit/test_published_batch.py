"""The door for tables of runs: what is read, what is never read, and what each row gets back."""

from __future__ import annotations

from pathlib import Path

import pytest
from row_cases import COMPLETE, PART_COLUMNS, row, seconds

from exactmap.errors import InvalidInputError
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.batch import OUTPUT_COLUMNS, read_rows, result_line
from exactmap.sim.published.row import RESULT_COLUMNS, UNREAD_COLUMNS, Row
from exactmap.sim.verbs.predict import predict

_UNREAD = ("id", "set", "mark", "source", "notes", "other", *RESULT_COLUMNS)
_SCRAMBLES = ("12345.6", "full recompute, tp 8, ZeRO-3", "measured", "", "A100", "nan", "\u4e03")


def _write(path: Path, *rows: dict[str, str]) -> Path:
    columns = list(rows[0])
    text = [",".join(columns), *(",".join(f'"{each[name]}"' for name in columns) for each in rows)]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_the_columns_that_are_not_read_are_those_that_the_page_names() -> None:
    assert set(UNREAD_COLUMNS) == set(_UNREAD)


def test_no_packaged_row_is_priced_by_its_name_or_its_result() -> None:
    """All rows, columns that are not read scrambled or blank: the same bytes but for the id."""
    number = 0
    for number, packaged in enumerate(published_and_b200(), start=1):
        before = result_line(packaged)
        blank = dict(packaged.values) | dict.fromkeys(_UNREAD, "")
        mixed = dict(packaged.values)
        for place, column in enumerate(_UNREAD):
            mixed[column] = _SCRAMBLES[(number + place) % len(_SCRAMBLES)]
        for values in (blank, mixed) if number % 4 == 0 else (mixed if number % 2 else blank,):
            after = result_line(Row(values))

            assert after["id"] == values["id"]
            assert {**after, "id": ""} == {**before, "id": ""}, packaged["id"]
    assert number > 2500


def test_columns_may_stand_in_any_order_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    turned = dict(reversed((COMPLETE | {"weather": "rain", "": "7"}).items()))
    (line,) = predict(_write(tmp_path / "turned.csv", turned)).lines

    assert line == result_line(row())


def test_a_table_of_pandas_reads_as_one_of_whole_numbers(tmp_path: Path) -> None:
    """A frame with gaps writes 8.0 for 8, and its index as a first column without a name."""
    written = {"": "0"} | {name: f"{text}.0" if text.isdecimal() else text for name, text in COMPLETE.items()}
    (line,) = predict(_write(tmp_path / "frame.csv", written)).lines

    assert line == result_line(row())
    sharded = {"framework": "torchtitan", "tp": "1", "pp": "1", "dp": "64", "vpp": "", "n_microbatches": ""}
    assert result_line(row(**sharded, fsdp="64.0")) == result_line(row(**sharded, fsdp="64"))


def test_the_parts_of_every_row_add_up_to_it() -> None:
    for packaged in list(published_and_b200())[::7]:
        line = result_line(packaged)
        if line["status"] == "refused":
            assert line["reason"]
            assert not any(line[name] for name in OUTPUT_COLUMNS[1:] if name not in ("status", "reason"))
            continue
        step = seconds(line, "predicted_s")

        assert sum(seconds(line, name) for name in PART_COLUMNS) == pytest.approx(step, rel=1e-4)
        assert seconds(line, "low_s") <= step <= seconds(line, "high_s")
        assert min(seconds(line, name) for name in PART_COLUMNS) >= 0.0
        assert float(line["mem_gib"]) > 0.0


def test_a_row_that_states_everything_assumes_nothing() -> None:
    line = result_line(row())

    assert line["status"] == "predicted"
    assert (line["assumed"], line["warnings"], line["reason"]) == ("", "", "")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vocab": ""}, "vocab="),
        ({"mbs": "", "n_microbatches": ""}, "mbs="),
        ({"framework": "my own"}, "framework="),
        ({"vpp": ""}, "vpp="),
        ({"tp": "", "dp": "", "pp": "16", "vpp": "1"}, "tp=1"),
        ({"recompute": ""}, "recompute=none"),
    ],
)
def test_what_is_taken_for_an_empty_cell_is_named(changes: dict[str, str], named: str) -> None:
    line = result_line(row(**changes))

    assert line["status"] == "predicted", line["reason"]
    assert named in line["assumed"]


def test_microbatches_of_one_column_follow_from_the_other() -> None:
    stated = result_line(row(mbs="2", n_microbatches="16"))

    assert result_line(row(mbs="2", n_microbatches="")) == stated
    assert result_line(row(mbs="", n_microbatches="16")) == stated
    assert stated != result_line(row())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpu": "TPUv4"}, "gpu: no such GPU"),
        ({"gpu": ""}, "gpu: no such GPU"),
        ({"n_gpus": ""}, "n_gpus: a field is empty"),
        ({"seq_len": "long"}, "seq_len: not a number"),
        ({"layers": "80.5"}, "layers: not a whole number"),
        ({"layers": "1000000", "pp": "1", "dp": "16", "vpp": ""}, "layers: too many layers"),
        ({"hidden": "-8192"}, "hidden: not a whole number in range"),
        ({"dp": "8"}, "dp: tp x pp x cp x dp is not the number of GPUs"),
        ({"tp": "3"}, "tp x pp x cp does not divide the GPUs"),
        ({"gbs": "130"}, "gbs: the batch does not divide"),
        ({"mbs": "", "n_microbatches": "7"}, "n_microbatches: the batch does not divide"),
        ({"vpp": "80"}, "vpp: more stages than layers"),
        ({"arch": "moe"}, "n_experts: a mixture of experts without their number"),
        ({"n_experts": "8", "top_k": "9", "moe_ffn": "1024"}, "top_k: more experts for a token"),
        ({"flags": "pp_layout=Et*3|tL"}, "layout: this pipeline layout does not fit"),
        ({"nic_gbps_per_gpu": "fast"}, "nic_gbps_per_gpu: not a number"),
    ],
)
def test_a_row_without_a_price_says_why(changes: dict[str, str], words: str) -> None:
    line = result_line(row(**changes))

    assert line["status"] == "refused"
    assert words in line["reason"]
    assert "\n" not in line["reason"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty table"),
        ("\n\n", "an empty table"),
        (",,\n1,2,3\n", "an empty table"),
        ("gpu,n_gpus\nH100,8\n", "hidden, layers, seq_len, gbs as well"),
        ("gpu,n_gpus,hidden,layers,seq_len,gbs,gpu\n", "a column stands twice"),
        ("gpu,n_gpus,hidden,layers,seq_len,gbs\n" + "x" * 200_000 + "\n", "not a CSV table"),
    ],
)
def test_what_is_no_table_is_an_error_that_names_the_line(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=r"t\.csv:\d") as caught:
        list(read_rows("t.csv", text))
    assert words in str(caught.value)


def test_short_long_and_blank_lines_keep_their_places() -> None:
    text = "id,gpu,n_gpus,hidden,layers,seq_len,gbs\n\na,H100\n\nb,H100,8,1,1,1,1,more,cells\n"
    rows = list(read_rows("t.csv", text))

    assert [(each["id"], each.line) for each in rows] == [("a", 3), ("b", 5)]
    assert rows[0]["gbs"] == ""


def test_nothing_is_written_for_a_table_that_is_none(tmp_path: Path) -> None:
    table, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    for content in (b"gpu\nH100\n", b"\xff\xfe\x00", b"gpu,n_gpus\n\0", b""):
        table.write_bytes(content)
        with pytest.raises(InvalidInputError):
            predict(table, out=out)
    assert not out.exists()


def test_the_file_has_a_line_per_row_in_order(tmp_path: Path) -> None:
    rows = [COMPLETE | {"id": f"r{number}", "gbs": str(number)} for number in range(120, 140)]
    out = tmp_path / "out.csv"
    report = predict(_write(tmp_path / "rows.csv", *rows), out=out)
    lines = out.read_text(encoding="utf-8").splitlines()

    assert lines[0] == ",".join(OUTPUT_COLUMNS)
    assert [line.split(",")[0] for line in lines[1:]] == [each["id"] for each in rows]
    assert report.num_predicted == 5
    assert sum(line["status"] == "refused" for line in report.lines) == 15
