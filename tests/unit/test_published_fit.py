"""What constants may be fitted on, and that nothing else is looked at."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from zlib import crc32

import pytest
from row_cases import row

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.kernels.constants import (
    GpuConstants,
    SoftwareConstants,
    constants_table,
    constants_text,
    forget_constants,
)
from exactmap.sim.published import fit
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.fit import Fitter, FreeConstant, fit_scatter, free_constants
from exactmap.sim.published.row import Row, may_fit
from exactmap.sim.published.software_of import software_of
from exactmap.sim.verbs.validate import fit_constants

_ROWS = tuple(published_and_b200())


def test_vtrain_multi_is_never_fitted() -> None:
    rows = [each for each in _ROWS if each["set"] == "vtrain_multi"]

    assert len(rows) == 109
    assert not any(map(may_fit, rows))


def test_of_vtrain_single_whole_groups_are_fitted_one_in_four() -> None:
    """Equal model, number of GPUs and batch stay together."""
    groups: defaultdict[str, set[bool]] = defaultdict(set)
    for each in _ROWS:
        if each["set"] == "vtrain_single":
            groups["/".join(each[name] for name in ("model", "n_gpus", "gbs"))].add(may_fit(each))

    assert all(len(said) == 1 for said in groups.values())
    chosen = [name for name, said in groups.items() if True in said]
    assert chosen == [name for name in groups if crc32(name.encode()) % 4 == 0]
    assert 0.1 < len(chosen) / len(groups) < 0.4


def test_elsewhere_the_checksum_of_the_id_decides() -> None:
    rows = [each for each in _ROWS if not each["set"].startswith("vtrain")]

    assert [may_fit(each) for each in rows] == [crc32(each["id"].encode()) % 3 == 0 for each in rows]
    assert 0.25 < sum(map(may_fit, rows)) / len(rows) < 0.42


def test_the_fitter_looks_at_no_other_row() -> None:
    """Rows that may not be fitted do not even have their result read."""

    class Guarded(Row):
        def __getitem__(self, column: str) -> str:
            if column in ("step_time_s", "tok_s_gpu", "tflops_gpu", "mfu_pct", "mem_gib"):
                assert may_fit(self), f"the result of {self.values['id']} was read"
            return Row.__getitem__(self, column)

    guarded = [Guarded(each.values, each.line) for each in _ROWS[::3]]
    fitter = Fitter(guarded)
    allowed = sum(may_fit(each) and bool(each["step_time_s"]) for each in _ROWS[::3])

    assert 0.95 * allowed <= len(fitter.cases) <= allowed


def test_the_fitter_forgets_what_may_not_be_fitted() -> None:
    """Taking all other rows away leaves every error and weight as it is."""
    some = _ROWS[::5]
    whole, part = Fitter(some), Fitter([each for each in some if may_fit(each)])

    assert whole.errors == part.errors
    assert whole.weights == part.weights


def _own_row(number: int, **changes: str) -> Row:
    """A row that may be fitted, found by trying ids."""
    name = next(f"own-{k}" for k in range(10**6) if crc32(f"own-{k}".encode()) % 3 == 0 and k >= number * 100)
    return row(id=name, step_time_s="5.0", **changes)


def test_a_constant_moves_rows_of_its_gpu_or_its_software_alone() -> None:
    fitter = Fitter(
        [
            _own_row(0),
            _own_row(1, gpu="B200"),
            _own_row(2, framework="NeMo", release="25.04"),
            _own_row(3, release="26.02.01"),
        ]
    )

    assert fitter.rows_of(FreeConstant("gpu", "H100", "gemm", 0.5, 1.0)) == [0, 2, 3]
    assert fitter.rows_of(FreeConstant("gpu", "B200", "gemm", 0.5, 1.0)) == [1]
    assert fitter.rows_of(FreeConstant("software", "nemo", "gemm", 0.5, 1.0)) == [2]
    assert fitter.rows_of(FreeConstant("software", "megatron-bridge@26.02", "gemm", 0.5, 1.0)) == [0, 1, 3]


def test_a_search_finds_the_constant_that_made_the_rows() -> None:
    """Rows priced with gemm = .8 give .8 back, and the table is left with it."""
    constant = FreeConstant("gpu", "H100", "gemm", 0.5, 1.1)
    table = constants_table()
    kept = dict(table["gpu", "H100"])
    try:
        table["gpu", "H100"]["gemm"] = 0.8
        forget_constants()
        fitter = Fitter(
            [_own_row(number, gbs=str(128 * (number + 1)), n_microbatches="") for number in range(3)]
        )
        fitter.cases = [
            (setup, measured + error, part)
            for (setup, measured, part), error in zip(fitter.cases, fitter.errors, strict=True)
        ]
        table["gpu", "H100"]["gemm"] = 0.95
        forget_constants()
        value, number = fitter.fit([constant])[constant]

        assert number == 3
        assert value == pytest.approx(0.8, abs=0.02)
        assert fitter.median() < 0.01
        assert table["gpu", "H100"]["gemm"] == value
    finally:
        table["gpu", "H100"].clear()
        table["gpu", "H100"].update(kept)
        forget_constants()


def test_a_row_that_is_lost_pulls_no_more() -> None:
    """Twice the time is not a constant's doing: errors of 60 and 80 % cost the same, 10 and 30 % do not."""
    fitter = Fitter([_own_row(0)])

    def loss(error: float) -> float:
        fitter.errors = [error]
        return fitter.loss([0])

    assert loss(0.6) == loss(-0.8)
    assert loss(0.3) > loss(0.1) > loss(0.0)


def test_scatter_is_stated_only_where_there_are_rows_enough() -> None:
    assert fit_scatter(Fitter([_own_row(number) for number in range(4)])) == {}
    ((key, (value, number)),) = fit_scatter(Fitter([_own_row(number) for number in range(6)])).items()

    assert (key, number) == (("H100", "scatter"), 6)
    assert value > 0.0


def test_no_gpu_and_no_release_has_more_than_twelve_constants() -> None:
    count = Counter((each.scope, each.whose) for each in free_constants())
    table = Counter({key: len(values) for key, values in constants_table().items()})

    assert max(count.values()) <= 12
    assert max(table.values()) <= 12
    for scope, whose in constants_table():
        # A release has its family's with its own.
        family = constants_table().get((scope, whose.partition("@")[0]), {})
        assert len(family.keys() | constants_table()[scope, whose].keys()) <= 12


def test_a_thirteenth_constant_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    names = list(SoftwareConstants.__dataclass_fields__)[:13]
    lines = ["scope,whose,constant,low,high", *(f"software,nemo,{name},0,1" for name in names)]
    (folder / "free-constants.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(fit, "files", lambda _: tmp_path)
    with pytest.raises(InvalidInputError, match="too many constants for software nemo"):
        free_constants()


def test_every_constant_has_a_name_a_range_and_a_source() -> None:
    known = {
        "gpu": set(GpuConstants.__dataclass_fields__),
        "software": set(SoftwareConstants.__dataclass_fields__),
    }
    for each in free_constants():
        assert each.name in known[each.scope]
        assert each.low < each.high
        assert each.low <= each.default <= each.high
    rows = list(csv.DictReader(line for line in constants_text().splitlines() if not line.startswith("#")))
    assert all(each["constant"] in known[each["scope"]] for each in rows)
    assert all(each["source"] for each in rows)


def test_constants_belong_to_gpus_and_software_and_to_nothing_else() -> None:
    """No model, set or row has one: scopes are curves of GPUs, and families with their releases."""
    gpus = {each["gpu"] for each in _ROWS}
    families = {software_of(each, []).family for each in _ROWS} | {"zero-bubble"}
    for scope, whose in constants_table():
        if scope == "gpu":
            assert whose in gpus
        else:
            assert scope == "software"
            assert whose.partition("@")[0] in families


def test_a_scope_that_has_no_free_constant_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="gpu:H1OO"):
        fit_constants(tmp_path, only="gpu:H100,gpu:H1OO")

    assert not list(tmp_path.iterdir())
