"""The gallery of schedules: numbers by simulation, limits, uneven stages, files, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
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
        ({"f_ns": float("nan")}, "f_ns: a duration is out of range: got nan ns"),
        ({"f_ns": 0.4}, "f_ns: a duration is out of range"),
        ({"f_ns": 10**18}, "the clock could overflow"),
        ({"hop_ns": 10**18}, "the clock could overflow"),
        ({"group_size": -1}, "group_size: a number is out of range"),
        ({"stash_limit": -1}, "stash_limit: a number is out of range"),
        ({"braid_share": 0}, "braid_share: a number is out of range"),
        ({"braid_share": float("nan")}, "braid_share: a number is out of range"),
        ({"layers": -1}, "layers: a number is out of range"),
        ({"layers": 10**9}, "layers: a number is out of range"),
        ({"layers": 8, "head_layers": -1}, "head_layers: a number is out of range"),
        ({"layers": 8, "embedding_layers": float("inf")}, "embedding_layers: a number is out of range"),
        ({"head_layers": 2}, "head_layers: what a part costs in layers says nothing of equal stages"),
        ({"out": "x.pdf"}, "a figure is written as PNG"),
        ({"out": ""}, "a file without a name"),
        ({"out": "x.png", "torch": "x.png", "names": ("1f1b",)}, "would be the same file"),
        ({"out": "x.png", "torch": "x.csv", "names": ("dualpipe",)}, "cannot say a stage on two ranks"),
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


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    """Who asks for a figure and gets none would look for it in vain."""
    with pytest.raises(
        InfeasibleError, match=r"no schedule can run so: got dualpipe: .* even number of micro"
    ):
        schedules(["dualpipe"], m=7, out=tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_names_may_be_one_or_repeated_and_index_the_rows() -> None:
    one = schedules("zb-v")
    twice = schedules(["zb-h1", "zb-v", "zb-h1"])

    assert [each.name for each in one] == ["zb-v"]
    assert [each.name for each in twice] == ["zb-h1", "zb-v"]
    assert twice["zb-v"] == one["zb-v"]
    with pytest.raises(KeyError):
        _ = twice["1f1b"]


def test_a_wrong_case_is_told_the_name() -> None:
    with pytest.raises(InvalidInputError, match="did you mean '1f1b'"):
        schedules(["1F1B"])


def test_only_the_passes_that_are_listed_count_against_the_limit() -> None:
    """1F1B has no slices and no chunks: what others would make of them is not its size."""
    assert schedules(["1f1b"], p=2, m=4, v=100, slices=10_000)["1f1b"].constraints_met
    with pytest.raises(InvalidInputError, match="too many passes"):
        schedules(["1f1b", "terapipe"], p=8, m=100, v=100, slices=10_000)


def test_offload_needs_copies_that_hide() -> None:
    """A stash is gone and back in time if a copy takes half a pass, but not if it takes a whole one."""
    free, short, long = (
        row("1f1b-offload", p=4, m=8, stash_limit=3, copy_ns=copy_ns) for copy_ns in (0, 0.5e6, 1e6)
    )

    assert free.makespan_ns == short.makespan_ns == 33_000_000
    assert "offload alone cannot keep to the stash limit: got 4 stashes" in long.why_not
    # Without a limit whatever can be gone and back in time goes: of these, nothing.
    assert row("1f1b-offload", p=4, m=8, copy_ns=0.5e6).peak_stash_microbatches == 3
    assert row("1f1b-offload", p=4, m=8, copy_ns=20e6).peak_stash_microbatches == 4


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()

    found = schedules("1f1b", p=2, m=2, out=tmp_path / "v1.2")

    assert found.files == (str(tmp_path / "v1.2" / "1f1b.png"),)


def test_every_schedule_has_its_section_and_its_picture() -> None:
    page = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    for name in SCHEDULES:
        assert f": `{name}`" in page
        assert f"pictures/schedules/{name}.png" in page
        assert (ROOT / "docs" / "pictures" / "schedules" / f"{name}.png").exists()
