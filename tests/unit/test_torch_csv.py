"""Schedules of torch as files: what it writes is read, written again, and lowered as torch does it."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work, loop_placement, vee_placement
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.schedules.torch_csv.file import parse_torch_csv, read_torch_csv, write_torch_csv
from exactmap.sim.schedules.torch_csv.lower import defer_receives, lower_as_torch, passes_of

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_schedules"
COMPUTE_ONLY = sorted(
    path.name.removesuffix(".compute_only.csv") for path in GOLDEN.glob("*.compute_only.csv")
)
COMPUTE_COMMS = sorted(
    path.name.removesuffix(".compute_comms.csv") for path in GOLDEN.glob("*.compute_comms.csv")
)
DEFERRED = sorted(path.name.removesuffix(".deferred.csv") for path in GOLDEN.glob("*.deferred.csv"))
UNIT_NS = 1_200_000


def _order(stem: str) -> Order:
    return read_torch_csv(GOLDEN / f"{stem}.compute_only.csv").order()


def _makespan(order: Order, *, hop: float = 0.0, braid_share: float = 1.0) -> tuple[float, float]:
    """Barrier makespan and steady period where F, I and W of all layers of a rank take 1 each."""
    unit_ns = UNIT_NS * order.num_ranks // order.num_stages
    work_ns = {(op, stage): unit_ns for op in "FIW" for stage in range(order.num_stages)}
    timeline = walk(order, WorkTimes(work_ns, round(hop * UNIT_NS), braid_share))
    period_ns = max(int(e[-1] - s[0]) for s, e in zip(timeline.start_ns, timeline.end_ns, strict=True))
    return timeline.makespan_ns / UNIT_NS, period_ns / UNIT_NS


@pytest.mark.parametrize("stem", COMPUTE_ONLY)
def test_what_torch_writes_comes_back_cell_for_cell(stem: str, tmp_path: Path) -> None:
    """File, order, file: the same bytes but for the idle cells, which an order does not have."""
    stored = GOLDEN / f"{stem}.compute_only.csv"
    order = read_torch_csv(stored).order()

    write_torch_csv(order, tmp_path / "again.csv")

    lines = stored.read_bytes().split(b"\r\n")
    busy = [b",".join(cell for cell in line.split(b",") if cell) for line in lines]
    assert (tmp_path / "again.csv").read_bytes() == b"\r\n".join(busy)
    assert read_torch_csv(tmp_path / "again.csv").order() == order


@pytest.mark.parametrize("stem", COMPUTE_COMMS)
def test_an_order_is_lowered_as_torch_lowers_it(stem: str, tmp_path: Path) -> None:
    """UNSHARD, RESHARD, REDUCE_GRAD, SEND and RECV stand in the very places where torch puts them."""
    stored = GOLDEN / f"{stem}.compute_comms.csv"

    write_torch_csv(_order(stem), tmp_path / "lowered.csv", "compute_comms")

    assert (tmp_path / "lowered.csv").read_bytes() == stored.read_bytes()


@pytest.mark.parametrize("stem", COMPUTE_COMMS)
def test_the_passes_of_a_lowered_schedule_are_those_of_the_plain_one(stem: str, tmp_path: Path) -> None:
    """Messages and collectives do not change the order that is read; written again, nothing is lost."""
    schedule = read_torch_csv(GOLDEN / f"{stem}.compute_comms.csv")

    assert schedule.form == "compute_comms"
    assert schedule.order() == _order(stem)
    assert [",".join(row) for row in schedule.cells()] == (
        (GOLDEN / f"{stem}.compute_comms.csv").read_text(encoding="ascii").splitlines()
    )


@pytest.mark.parametrize("stem", DEFERRED)
def test_deferred_receives_stand_where_torch_defers_them(stem: str) -> None:
    """What `defer_pp_recv=True` makes of a schedule, action for action."""
    order = _order(stem)
    rank_of = [held[0] for held in order.placement]

    deferred = defer_receives(lower_as_torch(order), rank_of)

    assert [actions.cells() for actions in deferred] == read_torch_csv(
        GOLDEN / f"{stem}.deferred.csv"
    ).cells()


def test_every_schedule_of_torch_is_stored() -> None:
    """Seven schedules; 1F1B as its own malformed action list only."""
    stems = {path.name.split("-")[0] for path in GOLDEN.glob("*.csv")} - {"ByHand"}

    assert {"GPipe", "1F1B", "Interleaved1F1B", "LoopedBFS"} < stems
    assert stems - {"GPipe", "1F1B", "Interleaved1F1B", "LoopedBFS"} == {
        "InterleavedZeroBubble",
        "ZBVZeroBubble",
        "DualPipeV",
    }


# Measured of torch 2.13.0's orders with F = I = W = 1 of a rank, and a latency of 0 or 0.05 on every hop.
@pytest.mark.parametrize(
    ("stem", "share", "without", "with_latency"),
    [
        ("Interleaved1F1B-p4-m8-v2", 1, 28.5, 29.2),
        ("Interleaved1F1B-p8-m24-v2", 1, 82.5, 84.0),
        ("Interleaved1F1B-p8-m24-v4", 1, 77.25, 80.35),
        ("InterleavedZeroBubble-p4-m8-v2", 1, 25.5, 26.3),
        ("InterleavedZeroBubble-p8-m24-v2", 1, 75.5, 77.3),
        ("ZBVZeroBubble-p4-m8-v2", 1, 25.5, 26.15),
        ("ZBVZeroBubble-p8-m24-v2", 1, 75.5, 77.15),
        ("DualPipeV-p4-m8-v2", 1, 27.0, 27.8),
        ("DualPipeV-p8-m24-v2", 1, 79.0, 81.9),
        ("DualPipeV-p4-m8-v2", 2.5 / 3, 24.5, 25.3),
        ("DualPipeV-p8-m24-v2", 2.5 / 3, 69.5, 72.4),
    ],
)
def test_orders_of_torch_take_the_time_known_of_them(
    stem: str, share: float, without: float, with_latency: float
) -> None:
    """An overlap is a braid: it takes the sum of its passes, or less."""
    order = _order(stem)

    assert _makespan(order, braid_share=share)[0] == pytest.approx(without, abs=1e-4)
    assert _makespan(order, hop=0.05, braid_share=share)[0] == pytest.approx(with_latency, abs=1e-4)


@pytest.mark.parametrize(
    ("stem", "without", "with_latency"),
    [("ZBVZeroBubble-p4-m8-v2", 24.0, 24.8), ("ZBVZeroBubble-p8-m24-v2", 72.0, 74.0)],
)
def test_the_v_schedule_idles_only_at_the_barrier(stem: str, without: float, with_latency: float) -> None:
    """Its steady period without latency is that of the passes alone."""
    order = _order(stem)

    assert _makespan(order)[1] == pytest.approx(without, abs=1e-4)
    assert _makespan(order, hop=0.05)[1] == pytest.approx(with_latency, abs=1e-4)


@pytest.mark.parametrize(
    ("stem", "name", "chunks"),
    [
        ("GPipe-p4-m8-v1", "gpipe", 1),
        ("Interleaved1F1B-p4-m8-v2", "interleaved-1f1b", 2),
        ("Interleaved1F1B-p2-m4-v2", "interleaved-1f1b", 2),
        ("Interleaved1F1B-p8-m24-v2", "interleaved-1f1b", 2),
        ("Interleaved1F1B-p8-m24-v4", "interleaved-1f1b", 4),
        ("Interleaved1F1B-p4-m10-v3", "interleaved-1f1b", 3),
        ("InterleavedZeroBubble-p4-m8-v2", "interleaved-zb", 2),
        ("InterleavedZeroBubble-p8-m24-v2", "interleaved-zb", 2),
        ("ZBVZeroBubble-p4-m8-v2", "zb-v", 2),
        ("ZBVZeroBubble-p8-m24-v2", "zb-v", 2),
        ("DualPipeV-p4-m8-v2", "dualpipe-v", 2),
        ("DualPipeV-p8-m24-v2", "dualpipe-v", 2),
    ],
)
def test_our_orders_are_those_of_torch(stem: str, name: str, chunks: int) -> None:
    """Two generators written apart give the same works in the same order, also where p does not divide m."""
    order = _order(stem)

    ours = passes_of(_ours(name, order, chunks))

    assert [actions.cells() for actions in ours] == [actions.cells() for actions in passes_of(order)]


def test_breadth_first_takes_the_time_of_looped_bfs() -> None:
    """Ours goes back through the microbatches in ascending order, torch in descending order."""
    order = _order("LoopedBFS-p4-m8-v2")
    ours = _ours("breadth-first", order, 2)

    assert ours != order
    assert _makespan(ours) == _makespan(order)
    assert _makespan(ours, hop=0.05) == _makespan(order, hop=0.05)


def _ours(name: str, order: Order, chunks: int) -> Order:
    return make_order(name, order.num_ranks, order.num_microbatches, chunks)


@pytest.mark.parametrize("form", ["compute_only", "compute_comms"])
@pytest.mark.parametrize(
    ("name", "chunks"), [("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 3), ("zb-h1", 1)]
)
@pytest.mark.parametrize(("ranks", "microbatches"), [(1, 3), (2, 1), (4, 3), (4, 9)])
def test_our_orders_go_out_and_come_back(
    name: str, chunks: int, ranks: int, microbatches: int, form: str, tmp_path: Path
) -> None:
    """Whatever their size: one rank, fewer microbatches than ranks, a remainder."""
    order = make_order(name, ranks, microbatches, chunks)

    write_torch_csv(order, tmp_path / "order.csv", form)

    schedule = read_torch_csv(tmp_path / "order.csv")
    assert (schedule.order(), schedule.form) == (order, form)


def test_collectives_can_be_left_out() -> None:
    """Without unshards and reductions only passes and messages are left."""
    order = make_order("zb-h1", 2, 2)

    bare = lower_as_torch(order, unshard=False, reduce_grad=False)

    assert " ".join(bare[0].cells()) == "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0I0 0W0 0RECV_B1 0I1 0W1"
    assert " ".join(bare[1].cells()) == "1RECV_F0 1F0 1RECV_F1 1I0 1SEND_B0 1F1 1I1 1SEND_B1 1W0 1W1"


F, I, W, B = Op.F, Op.I, Op.W, Op.B
ONE = [Work(F, 0, 0), Work(B, 0, 0)]


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (Order(1, ((0, 1),), [ONE, []]), "a stage on two ranks"),
        (Order(1, ((0,),), [ONE, []]), "a rank without passes"),
        (
            Order(
                1,
                ((0,),),
                [[Work(F, 0, 0, 0), Work(F, 0, 0, 1), Work(B, 0, 0, 1), Work(B, 0, 0, 0)]],
                num_slices=2,
            ),
            "slices",
        ),
        (Order(1, ((0,),), [[Work(F, 0, 0), Work(Op.RC, 0, 0), Work(B, 0, 0)]]), "recomputation"),
        (
            Order(1, ((0,),), [[Work(F, 0, 0), Work(Op.OFF, 0, 0), Work(Op.LD, 0, 0), Work(B, 0, 0)]]),
            "offload",
        ),
    ],
)
def test_what_torch_cannot_say_is_refused(order: Order, what: str, tmp_path: Path) -> None:
    """Nothing is left out in silence, and no file is written."""
    for form in ("compute_only", "compute_comms"):
        with pytest.raises(InvalidInputError, match=what):
            write_torch_csv(order, tmp_path / "out.csv", form)

    assert list(tmp_path.iterdir()) == []


def test_the_page_about_the_files_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its example runs."""
    monkeypatch.chdir(tmp_path)

    result = doctest.testfile(
        str(GOLDEN.parents[2] / "docs" / "reference" / "torch-csv.md"), module_relative=False
    )

    assert (result.failed, result.attempted > 0) == (0, True)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown form"):
        write_torch_csv(make_order("1f1b", 2, 2), tmp_path / "out.csv", "compute")


def test_an_order_that_waits_for_itself_has_no_messages() -> None:
    """The lowering says which pass never starts."""
    circle = Order(
        2,
        ((0,), (1,)),
        [
            [Work(F, 0, 0), Work(B, 0, 0), Work(F, 0, 1), Work(B, 0, 1)],
            [Work(F, 1, 1), Work(B, 1, 1), Work(F, 1, 0), Work(B, 1, 0)],
        ],
    )

    with pytest.raises(InfeasibleError, match="waits for itself") as caught:
        lower_as_torch(circle)

    assert caught.value.got == "0B0 never starts"


def test_placement_is_inferred_from_the_rows() -> None:
    """Loop or V, an uneven number of stages: a stage lies where its passes stand."""
    assert _order("Interleaved1F1B-p4-m10-v3").placement == loop_placement(4, 3)
    assert _order("ZBVZeroBubble-p4-m8-v2").placement == vee_placement(4)
    assert parse_torch_csv("0F0,1F0,1B0,0B0\n2F0,2B0\n").placement == ((0,), (0,), (1,))


def test_idle_cells_and_blanks_around_cells_say_nothing() -> None:
    """An editor may pad or quote cells, and torch strips them; messages count idle cells too."""
    schedule = parse_torch_csv('0F0 ,,"0B0"\n ,1F0,1B0,,\n')

    assert schedule.cells() == [["0F0", "0B0"], ["1F0", "1B0"]]
    assert schedule.ranks[1].cell.tolist() == [2, 3]


def test_an_overlap_becomes_a_braid_and_an_overlap_again() -> None:
    """Members keep their order; a braid of one work is written as that work."""
    text = "0F0,(0F1;1F0)OVERLAP_F_B,1B0,(1F1;0B0)OVERLAP_F_B,1B1,0B1\n"

    order = parse_torch_csv(text).order()

    assert order.works(0).braid.tolist() == [-1, 0, 0, -1, 1, 1, -1, -1]
    assert ",".join(passes_of(order)[0].cells()) == text.strip()
    assert passes_of(parse_torch_csv(text).order())[0].cell.tolist() == [1, 2, 2, 3, 4, 4, 5, 6]
    alone = Order(1, ((0,),), [[Work(F, 0, 0, 0, 7), Work(B, 0, 0)]])
    assert passes_of(alone)[0].cells() == ["0F0", "0B0"]


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("0BFOO", "torch's own reader takes it for '0B'"),
        ("0SEND_F3x", "torch's own reader takes it for '0SEND_F3'"),
        ("0F0 0F1", "torch's own reader takes it for '0F0'"),
        ("0F", "passes and messages end in a microbatch"),
        ("1UNSHARD0", "passes and messages end in a microbatch"),
        ("00F0", "no leading zeros"),
        ("0F00", "no leading zeros"),
        ("0f0", None),
        ("F0", None),
        ("-1F0", None),
        ("0F-1", "torch's own reader takes it for '0F'"),
        ("0OVERLAP_F_B", None),
        ("(0F0)OVERLAP_F_B", "(0F1;7B0)OVERLAP_F_B"),
        ("()OVERLAP_F_B", "(0F1;7B0)OVERLAP_F_B"),
        ("(0F0;0SEND_F0)OVERLAP_F_B", "(0F1;7B0)OVERLAP_F_B"),
        ("(0F0;0B1)OVERLAP", None),
        ("(0F0;0B1)OVERLAP_F_B2", None),
        ("((0F0;0B1)OVERLAP_F_B;0F2)OVERLAP_F_B", None),
        ("0F9999999999", "at most nine digits"),
        ("0F\x00", "torch's own reader takes it for '0F'"),
    ],
)
def test_a_cell_is_an_action_or_an_error(cell: str, hint: str | None) -> None:
    """Nothing is read that only begins like an action; the message says where, what, and what torch does."""
    with pytest.raises(InvalidInputError) as caught:
        parse_torch_csv(f"0F0,,0B0\n1F0,{cell},1B0\n", "bad.csv")

    assert str(caught.value).startswith("bad.csv:2: cell 2: ")
    assert (caught.value.got, caught.value.exit_code) == (repr(cell), 3)
    assert (caught.value.hint is None) if hint is None else hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv: the schedule is empty"),
        ("0F0,0B0\n\n", "bad.csv:2: rank 1 has no actions"),
        ("0F0,0B0\n,,\n", "bad.csv:2: rank 1 has no actions"),
        ("0F0,0B0\n1SEND_B0\n", "bad.csv:2: rank 1 runs no pass"),
        ("0F0,0B0\n0F1,0B1\n", "bad.csv:2: cell 1: stage 0 has passes on rank 0 already"),
        ("0F0,0B0\n2F0,2B0\n", "bad.csv: no rank runs stage 1"),
        ("0F900,0B900\n", "bad.csv: a microbatch 900: got 2 passes"),
        ('0F0,"0B0\n', "bad.csv:1: no CSV"),
        ('0F0,"0\nB0"\n', "bad.csv:2: cell 2: this is no action"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused(text: str, message: str) -> None:
    """The line, or the file, and the reason."""
    with pytest.raises(InvalidInputError) as caught:
        parse_torch_csv(text, "bad.csv")

    assert str(caught.value).startswith(message)


def test_many_bad_cells_are_told_at_once() -> None:
    """Up to twenty, then their number."""
    with pytest.raises(InvalidInputError) as caught:
        parse_torch_csv(",".join(["0X0"] * 25) + "\n", "bad.csv")

    assert len(caught.value.problems) == 20
    assert caught.value.hint == "5 more problems"


def test_a_file_that_is_no_ascii_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(b"0F0,0B0\n1F0,\xff\n")

    with pytest.raises(InvalidInputError, match="a byte that no action has") as caught:
        read_torch_csv(tmp_path / "bad.csv")

    assert str(caught.value.where).endswith("bad.csv:2")


def test_an_order_is_only_made_of_right_passes() -> None:
    """Every pass that is wrong is named with its cell."""
    with pytest.raises(InvalidInputError, match="no order of a step") as caught:
        parse_torch_csv("0F0,0B0,0F0\n1B0,1F0\n", "bad.csv").order()

    assert [str(problem) for problem in caught.value.problems] == [
        "bad.csv:1: cell 3: 0F0 stands in cell 1 already",
        "bad.csv:2: cell 1: 1B0 comes before 1F0 in cell 2",
    ]
