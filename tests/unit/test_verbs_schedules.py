"""The gallery of schedules: numbers by simulation, limits, uneven stages, files, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.registry import SCHEDULES
from exactmap.sim.verbs.schedules import GalleryRow, schedules

ROOT = Path(__file__).parents[2]


def row(name: str, **settings: object) -> GalleryRow:
    return schedules([name], **settings).rows[0]  # type: ignore[arg-type]


def test_all_schedules_are_listed_in_the_order_of_the_registry() -> None:
    found = schedules(p=4, m=8)

    assert [each.name for each in found.rows] == list(SCHEDULES)
    assert all(each.constraints_met and each.makespan_ns for each in found.rows)


def test_numbers_are_those_of_the_published_example() -> None:
    """p=4, m=8, F=I=W=1: ZB-V takes 25.5 with a barrier and 24 without, at the stash of 1F1B."""
    found = row("zb-v", p=4, m=8)

    assert (found.makespan_ns, found.period_ns) == (25_500_000, 24_000_000)
    assert (found.peak_stash_microbatches, found.p2p_messages) == (4, 2 * 8 * 6)
    assert found.bubble_barrier == pytest.approx(1 - 24 / 25.5, abs=1e-6)
    assert found.bubble_steady == 0


def test_a_schedule_that_cannot_run_says_why_and_has_no_numbers() -> None:
    found = row("dualpipe", p=5, m=12)

    assert not found.constraints_met
    assert "even number of ranks" in found.why_not
    assert found.makespan_ns is None


def test_a_stash_over_the_limit_is_measured_and_marked() -> None:
    found = row("gpipe", p=4, m=8, stash_limit=6)

    assert not found.constraints_met
    assert found.why_not == "its stash of 8 is over the limit of 6"
    assert found.makespan_ns == 33_000_000


def test_a_limit_is_kept_where_a_schedule_can() -> None:
    """Selective recomputation gives up as little as it must: more room, shorter step."""
    steps = [row("1f1b-selective-recompute", p=4, m=8, stash_limit=limit) for limit in (1, 2, 3, 4)]

    assert all(each.constraints_met for each in steps)
    spans = [each.makespan_ns or 0 for each in steps]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] == 33_000_000


def test_a_heavy_head_makes_the_step_longer_and_its_balance_shorter() -> None:
    """Eight layers and a head of two over four ranks: as ten layers would take, not as eight and two."""
    even = row("1f1b", p=4, m=8)
    heavy = row("1f1b", p=4, m=8, layers=8, head_layers=2.0)

    assert even.makespan_ns is not None
    assert heavy.makespan_ns is not None
    assert 1.2 < heavy.makespan_ns / even.makespan_ns < 1.5


def test_one_figure_for_all_or_a_folder_with_one_each(tmp_path: Path) -> None:
    one = schedules(["1f1b", "dualpipe-v"], p=2, m=4, out=tmp_path / "both.png")
    each = schedules(["1f1b", "dualpipe-v"], p=2, m=4, out=tmp_path / "folder")

    assert one.files == (str(tmp_path / "both.png"),)
    assert [Path(file).name for file in each.files] == ["1f1b.png", "dualpipe-v.png"]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in (*one.files, *each.files))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 0}, "p: a number is out of range: got 0"),
        ({"w_ns": 0}, "w_ns: a duration is out of range"),
        ({"hop_ns": -1}, "hop_ns: a duration is out of range"),
        ({"m": 10**7}, "too many passes to list schedules for"),
        ({"out": "x.pdf"}, "a figure is written as PNG"),
        ({"torch": "x.csv", "names": ("1f1b", "gpipe")}, "a CSV holds one schedule: got 2 schedules"),
        ({"names": ("zbv",)}, "unknown schedule"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        schedules(**settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_every_schedule_has_its_section_and_its_picture() -> None:
    page = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    for name in SCHEDULES:
        assert f": `{name}`" in page
        assert f"pictures/schedules/{name}.png" in page
        assert (ROOT / "docs" / "pictures" / "schedules" / f"{name}.png").exists()
