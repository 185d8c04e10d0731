"""The checker of torch's schedules finds what torch's own validator lets pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.schedules.torch_csv.channels import ChannelModel, run_channels
from exactmap.sim.schedules.torch_csv.check import check_torch
from exactmap.sim.schedules.torch_csv.file import parse_torch_csv, read_torch_csv
from exactmap.sim.schedules.torch_csv.lower import defer_receives, lower_as_torch

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_schedules"
SMALL = GOLDEN / "Interleaved1F1B-p2-m4-v2.compute_comms.csv"
UNIT_NS = 1_200_000


def _rules(text: str) -> list[tuple[str, int, int, str]]:
    return [finding[:4] for finding in check_torch(parse_torch_csv(text)).findings]


def _changed(change: Callable[[list[list[str]]], None]) -> str:
    """A small lowered schedule of torch with something done to its cells."""
    rows = [line.split(",") for line in SMALL.read_text(encoding="ascii").splitlines()]
    change(rows)
    return "\n".join(",".join(row) for row in rows) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.compute_*.csv")), ids=lambda path: path.name)
def test_what_torch_lowers_is_right(path: Path) -> None:
    """No finding in any schedule of torch, but for the 1F1B list and deferred receives."""
    verdict = check_torch(read_torch_csv(path))

    assert verdict.findings == ()
    assert verdict.accepted
    assert all(run.makespan is not None for run in verdict.channels)


def test_both_forms_of_a_schedule_take_the_same_time() -> None:
    """A file of passes is lowered as torch does before its messages are run."""
    plain, lowered = (
        check_torch(read_torch_csv(GOLDEN / f"ZBVZeroBubble-p4-m8-v2.{form}.csv"))
        for form in ("compute_only", "compute_comms")
    )

    assert plain == lowered
    assert (plain.makespan, plain.bubble) == (25.5, pytest.approx(1.5 / 25.5))


def test_an_overlap_that_saves_time_shows_in_the_bubble() -> None:
    """Work of the members of an overlap counts once."""
    schedule = read_torch_csv(GOLDEN / "DualPipeV-p4-m8-v2.compute_only.csv")

    verdict = check_torch(schedule, braid_share=2.5 / 3)

    # An F of 0.5 and a B of 1 take 1.25 together.
    saved = [0.25 * sum("OVERLAP" in cell for cell in row) for row in schedule.cells()]
    assert verdict.makespan == pytest.approx(24.5)
    assert verdict.bubble == pytest.approx(1 - sum(24 - rank for rank in saved) / (4 * 24.5))


def test_the_1f1b_list_of_torch_lacks_its_first_forward_pass() -> None:
    """Its last rank runs F1 to F8 of 8 microbatches: F0 is missing, F8 is one too many."""
    assert [
        finding[:4] for finding in check_torch(read_torch_csv(GOLDEN / "1F1B-p4-m8-v1.ir.csv")).findings
    ] == [
        ("pass.missing", 3, 0, "3F0"),
        ("pass.unknown", 3, 15, "3F8"),
    ]


def test_the_gpipe_list_of_torch_has_reductions_but_no_messages() -> None:
    """Three hops of eight microbatches, forward and back, both ends."""
    findings = check_torch(read_torch_csv(GOLDEN / "GPipe-p4-m8-v1.ir.csv")).findings

    assert {finding.rule for finding in findings} == {"message.missing"}
    assert len(findings) == 3 * 8 * 2 * 2


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("0F0,0B0,0F0\n", [("pass.twice", 0, 3, "0F0")]),
        ("0F0,0B0,,0B0\n", [("pass.twice", 0, 4, "0B0")]),
        ("0F0,0B0,0W0\n", [("pass.twice", 0, 3, "0W0")]),
        ("0F0,0I0,0B0\n", [("pass.twice", 0, 2, "0I0")]),
        ("0F0,0I0,0W0,0W0\n", [("pass.twice", 0, 4, "0W0")]),
        ("0F0\n", [("pass.missing", 0, 0, "0B0")]),
        ("0B0\n", [("pass.missing", 0, 0, "0F0")]),
        ("0F0,0I0\n", [("pass.missing", 0, 0, "0W0")]),
        ("0F0,0W0\n", [("pass.missing", 0, 0, "0I0")]),
        ("0B0,0F0\n", [("pass.early", 0, 1, "0B0")]),
        ("0I0,0F0,0W0\n", [("pass.early", 0, 1, "0I0")]),
        ("0F0,0W0,0I0\n", [("pass.early", 0, 2, "0W0")]),
        ("0F1,0B1\n", [("pass.missing", 0, 0, "0F0"), ("pass.missing", 0, 0, "0B0")]),
        ("(0F0;0B0)OVERLAP_F_B\n", [("pass.overlap", 0, 1, "0B0")]),
        # A B of the second microbatch is missing on one rank alone.
        ("0F0,0F1,0B0,0B1\n1F0,1F1,1B0\n", [("pass.missing", 1, 0, "1B1")]),
    ],
)
def test_each_item_has_its_passes_once_and_in_order(
    text: str, findings: list[tuple[str, int, int, str]]
) -> None:
    """Counted one by one, not in sets."""
    assert _rules(text) == findings


def test_a_rank_without_its_receives_is_found() -> None:
    """The validator of torch accepts a rank with all RECVs deleted; each that is missing is named here."""

    def without(rows: list[list[str]]) -> None:
        rows[1] = [cell for cell in rows[1] if "RECV" not in cell]

    findings = check_torch(parse_torch_csv(_changed(without))).findings

    assert {(finding.rule, finding.rank, finding.cell) for finding in findings} == {("message.missing", 1, 0)}
    wanted = {f"1RECV_F{m}" for m in range(4)} | {f"3RECV_F{m}" for m in range(4)}
    assert {finding.action for finding in findings} == wanted | {f"1RECV_B{m}" for m in range(4)}


def _move(rank: int, cell: str, before: str | None) -> Callable[[list[list[str]]], None]:
    """Move a cell before another, or to the end."""

    def change(rows: list[list[str]]) -> None:
        rows[rank].remove(cell)
        rows[rank].insert(len(rows[rank]) if before is None else rows[rank].index(before), cell)

    return change


def _insert(rank: int, cell: str, before: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[rank].insert(rows[rank].index(before), cell)


def _remove(rank: int, cell: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[rank].remove(cell)


@pytest.mark.parametrize(
    ("change", "rule", "rank", "action"),
    [
        (_move(0, "0SEND_F0", "0F0"), "message.early", 0, "0SEND_F0"),
        (_move(1, "1RECV_F0", "1F1"), "message.late", 1, "1RECV_F0"),
        (_move(1, "3SEND_B0", "3B0"), "message.early", 1, "3SEND_B0"),
        (_move(0, "2RECV_B3", None), "message.late", 0, "2RECV_B3"),
        (_remove(0, "0SEND_F3"), "message.missing", 0, "0SEND_F3"),
        (_remove(1, "1RECV_F3"), "message.missing", 1, "1RECV_F3"),
        (_remove(1, "3SEND_B2"), "message.missing", 1, "3SEND_B2"),
        (_insert(0, "0SEND_F0", "0F1"), "message.twice", 0, "0SEND_F0"),
        (_insert(0, "0RECV_F0", "0F0"), "message.needless", 0, "0RECV_F0"),
        (_insert(1, "3SEND_F0", "3B0"), "message.needless", 1, "3SEND_F0"),
        (_insert(1, "1SEND_B9", "3B0"), "message.place", 1, "1SEND_B9"),
        (_insert(1, "0SEND_F0", "3B0"), "message.place", 1, "0SEND_F0"),
        (_insert(1, "7UNSHARD", "3B0"), "message.place", 1, "7UNSHARD"),
        (_remove(0, "0UNSHARD"), "gather.missing", 0, "0F0"),
        (_insert(0, "0UNSHARD", "0F1"), "gather.twice", 0, "0UNSHARD"),
        (_insert(0, "0RESHARD", "0UNSHARD"), "gather.early", 0, "0RESHARD"),
        (_insert(0, "0RESHARD", "0F1"), "gather.missing", 0, "0F1"),
        (_remove(1, "3RESHARD"), "gather.left", 1, "3UNSHARD"),
        (_move(1, "3RESHARD", "1UNSHARD"), "gather.early", 1, "3RESHARD"),
        (_remove(1, "3REDUCE_GRAD"), "reduce.missing", 1, "3REDUCE_GRAD"),
        (_insert(1, "3REDUCE_GRAD", "1RESHARD"), "reduce.twice", 1, "3REDUCE_GRAD"),
        (_move(1, "3REDUCE_GRAD", "3B3"), "reduce.early", 1, "3B3"),
    ],
)
def test_one_change_of_a_right_schedule_is_found(
    change: Callable[[list[list[str]]], None], rule: str, rank: int, action: str
) -> None:
    """Whatever is moved, doubled or left out: rule, rank and action are named, and the cell."""
    text = _changed(change)

    verdict = check_torch(parse_torch_csv(text))

    found = {(finding.rule, finding.rank, finding.action): finding for finding in verdict.findings}
    assert (rule, rank, action) in found
    assert not verdict.accepted
    cell = found[rule, rank, action].cell
    assert cell == 0 or text.splitlines()[rank].split(",")[cell - 1] == action


def test_a_gather_for_nothing_is_found() -> None:
    """Torch refuses to reshard a stage whose unshard nobody waited for."""
    text = "0UNSHARD,0RESHARD,0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD\n"

    assert _rules(text) == [("gather.unused", 0, 2, "0RESHARD")]


def test_a_message_between_stages_of_one_rank_is_found() -> None:
    """The runtime of torch hands over without one; a SEND to itself would never end."""
    text = "0F0,0SEND_F0,1RECV_F0,1F0,1B0,0B0,0REDUCE_GRAD,1REDUCE_GRAD\n"

    assert [finding[:1] + finding[3:5] for finding in check_torch(parse_torch_csv(text)).findings] == [
        ("message.needless", "0SEND_F0", "has stage 1 on the same rank"),
        ("message.needless", "1RECV_F0", "has stage 0 on the same rank"),
    ]


def test_a_reduction_that_comes_too_early_is_told_once() -> None:
    """However many passes follow it."""
    assert _rules("0F0,0F1,0F2,0REDUCE_GRAD,0B0,0B1,0B2\n") == [("reduce.early", 0, 5, "0B0")]


def test_no_reduction_at_all_is_worth_a_look() -> None:
    """Gradients may be reduced elsewhere: the schedule is accepted."""
    verdict = check_torch(parse_torch_csv("0UNSHARD,0F0,0B0,0RESHARD\n"))

    assert [(finding.rule, finding.error) for finding in verdict.findings] == [("reduce.missing", False)]
    assert verdict.accepted


def test_passes_that_wait_for_each_other_are_found() -> None:
    """Every pass is there and behind its own F, yet the step never ends."""
    text = "0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n"

    assert _rules(text)[0][0] == "progress.pass"


# Makespans with F = I = W = 1 and c = 0.1, in units; None stands for a step that never ends.
@pytest.mark.parametrize(
    ("stem", "usual", "deferred"),
    [
        ("Interleaved1F1B-p8-m24-v2", (121.3, 85.5, 85.5, 85.5), (None, None, 92.1, 92.1)),
        ("Interleaved1F1B-p8-m24-v4", (159.3, 83.95, 83.45, 83.45), (None, None, 96.95, 96.95)),
        ("ZBVZeroBubble-p8-m24-v2", (86.6, 78.8, 78.8, 78.8), (None, None, None, 85.4)),
        ("DualPipeV-p8-m24-v2", (128.8, 89.4, 88.8, 85.4), (None, None, None, 85.8)),
        ("LoopedBFS-p4-m8-v2", (46.9, 32.1, 32.1, 32.1), (None, 32.1, 32.1, 32.1)),
    ],
)
def test_what_shares_a_queue_decides_time_and_progress(
    stem: str, usual: tuple[float | None, ...], deferred: tuple[float | None, ...]
) -> None:
    """Torch's usual lowering ends under every model; with deferred receives most steps hang."""
    order = read_torch_csv(GOLDEN / f"{stem}.compute_only.csv").order()
    rank_of = [held[0] for held in order.placement]
    unit_ns = UNIT_NS * order.num_ranks // order.num_stages
    work_ns = {(op, stage): unit_ns for op in "FIW" for stage in range(order.num_stages)}
    times = WorkTimes(work_ns, hop_ns=UNIT_NS // 10)
    lowered = lower_as_torch(order)

    for ranks, wanted in ((lowered, usual), (defer_receives(lowered, rank_of), deferred)):
        runs = [run_channels(ranks, rank_of, order.num_microbatches, model, times) for model in ChannelModel]
        found = [None if run.makespan_ns is None else run.makespan_ns / UNIT_NS for run in runs]
        assert found == [value if value is None else pytest.approx(value, abs=1e-4) for value in wanted]


def test_a_hang_is_told_as_a_circle() -> None:
    """Two ranks whose queue to each other begins with a SEND on both sides."""
    schedule = read_torch_csv(GOLDEN / "Interleaved1F1B-p2-m4-v2.deferred.csv")

    verdict = check_torch(schedule)

    assert [(finding.rule, finding.error) for finding in verdict.findings] == [
        ("progress.rank", False),
        ("progress.pair", True),
    ]
    circle = verdict.channels[1].circle
    assert [(at.rank, at.action) for at in circle] == [
        (0, "2RECV_B0"), (0, "2SEND_F1"), (1, "3RECV_F1"), (1, "3SEND_B0"),
    ]  # fmt: skip
    rows = schedule.cells()
    assert all(rows[at.rank][at.cell - 1] == at.action for at in circle)
    assert check_torch(schedule, channels=ChannelModel.DIRECTION).accepted
