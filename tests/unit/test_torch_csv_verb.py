"""`exactmap check` of a schedule of torch: what is in it, or every place where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.verbs.input_kind import InputKind, input_kind

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "torch_schedules"
LOWERED = GOLDEN / "ZBVZeroBubble-p4-m8-v2.compute_comms.csv"
DEFERRED = GOLDEN / "ZBVZeroBubble-p4-m8-v2.deferred.csv"


def test_a_right_schedule_is_described() -> None:
    """Its form, sizes, step and bubble are among the facts."""
    report = exactmap.check(LOWERED)

    facts = dict(report.facts)
    assert (report.kind, facts["form"], facts["stages"]) == (
        "schedule",
        "compute_comms",
        "8 on 4 ranks, 2 each",
    )
    assert facts["step"].startswith("25.5 ")
    assert facts["bubble"] == "0.0588"
    assert report.notes == ()


def test_a_schedule_that_hangs_is_refused_with_a_way_out() -> None:
    """Under the usual model it hangs; under the one that the hint names it is accepted, with notes."""
    with pytest.raises(InvalidInputError, match="refused") as caught:
        exactmap.check(DEFERRED)

    assert caught.value.exit_code == 3
    assert str(caught.value.hint).endswith("--channels class")
    assert len(exactmap.check(DEFERRED, channels="class").notes) == 3


def test_many_findings_are_counted(tmp_path: Path) -> None:
    """Twenty are shown."""
    with pytest.raises(InvalidInputError) as caught:
        exactmap.check(GOLDEN / "GPipe-p4-m8-v1.ir.csv")

    assert len(caught.value.problems) == 20
    assert caught.value.hint == "76 more problems"


def test_stages_may_be_uneven(tmp_path: Path) -> None:
    """A rank with two stages beside one with one."""
    (tmp_path / "uneven.csv").write_text("0F0,1F0,1B0,0B0\n2F0,2B0\n", encoding="ascii")

    assert dict(exactmap.check(tmp_path / "uneven.csv").facts)["stages"] == "3 on 2 ranks, 1 to 2 each"


def test_options_that_do_not_belong_are_refused() -> None:
    """Overrides and defaults are a scenario's, channels a schedule's."""
    with pytest.raises(InvalidInputError, match="overrides are for scenarios"):
        exactmap.check(LOWERED, ["a=1"])
    with pytest.raises(InvalidInputError, match="a schedule has no defaults"):
        exactmap.check(LOWERED, effective=True)
    with pytest.raises(InvalidInputError, match="only a schedule of torch leaves its channels open"):
        exactmap.check(ROOT / "scenarios" / "cpu-quick.yaml", channels="pair")
    with pytest.raises(InvalidInputError, match="unknown model of channels"):
        exactmap.check(LOWERED, channels="peer")


def test_other_verbs_name_the_one_that_takes_it() -> None:
    assert input_kind(LOWERED) is InputKind.SCHEDULE
    with pytest.raises(InvalidInputError, match="this is a schedule of torch") as caught:
        exactmap.simulate(LOWERED)
    assert "exactmap check" in str(caught.value.hint)
