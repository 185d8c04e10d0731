"""Schedule files held against PyTorch 2.13.0.

It loads, lowers and runs what is written here, and the stored files are what it writes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.schedules.torch_csv.channels import ChannelModel, run_channels
from exactmap.sim.schedules.torch_csv.check import check_torch
from exactmap.sim.schedules.torch_csv.file import parse_torch_csv, read_torch_csv, write_torch_csv
from exactmap.sim.schedules.torch_csv.lower import defer_receives, lower_as_torch, passes_of

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.peer

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "torch_schedules"
RUN_LIMIT_S = 240


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"torch_schedules_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = _load(GOLDEN / "make.py")
MULTI = ["Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"]


def _cells(actions: dict[int, list[Any]]) -> list[list[str]]:
    return [[str(action) for action in actions[rank] if action is not None] for rank in sorted(actions)]


def test_stored_files_are_what_torch_writes(tmp_path: Path) -> None:
    """The golden folder, written anew."""
    maker.main(tmp_path)

    stored = {path.name: path.read_bytes() for path in GOLDEN.glob("*.csv")}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == stored


@pytest.mark.parametrize(
    ("p", "m", "v"), [(1, 2, 2), (2, 4, 2), (3, 6, 2), (4, 12, 2), (5, 10, 2), (8, 32, 2)]
)
@pytest.mark.parametrize("name", MULTI)
def test_schedules_of_torch_of_any_size_go_through(name: str, p: int, m: int, v: int, tmp_path: Path) -> None:
    """Imported and exported, lowered as torch lowers them, and with deferred receives too."""
    schedule = maker.make_schedule(name, p, m, v)
    deferred = maker.make_schedule(name, p, m, v, defer_pp_recv=True)
    schedule._dump_csv(tmp_path / "theirs.csv", format="compute_only")
    read = read_torch_csv(tmp_path / "theirs.csv")

    for form in ("compute_only", "compute_comms"):
        write_torch_csv(read.order(), tmp_path / f"{form}.csv", form)

    assert read_torch_csv(tmp_path / "compute_only.csv").cells() == _cells(schedule.pipeline_order)
    assert read_torch_csv(tmp_path / "compute_comms.csv").cells() == _cells(
        schedule.pipeline_order_with_comms
    )
    late = defer_receives(lower_as_torch(read.order()), [held[0] for held in read.placement])
    assert [actions.cells() for actions in late] == _cells(deferred.pipeline_order_with_comms)
    assert check_torch(read).accepted


@pytest.mark.parametrize("v", [3, 4, 6])
@pytest.mark.parametrize("name", ["Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble"])
def test_more_stages_than_stay_unsharded(name: str, v: int, tmp_path: Path) -> None:
    """With more than three stages a rank, torch reshards and unshards within the step: at the same places."""
    schedule = maker.make_schedule(name, 4, 8, v)
    schedule._dump_csv(tmp_path / "theirs.csv", format="compute_only")

    write_torch_csv(read_torch_csv(tmp_path / "theirs.csv").order(), tmp_path / "ours.csv", "compute_comms")

    assert read_torch_csv(tmp_path / "ours.csv").cells() == _cells(schedule.pipeline_order_with_comms)


ORDERS = [
    ("gpipe", 4, 8, 1),
    ("1f1b", 4, 8, 1),
    ("1f1b", 4, 2, 1),
    ("zb-h1", 4, 8, 1),
    ("zb-h1", 8, 3, 1),
    ("interleaved-1f1b", 4, 10, 2),
    ("interleaved-1f1b", 3, 7, 5),
    ("breadth-first", 4, 6, 2),
    ("zb-h2", 4, 9, 1),
    ("interleaved-zb", 4, 8, 2),
    ("zb-v", 4, 8, 2),
    ("v-half", 4, 8, 2),
    ("v-min", 4, 8, 2),
    ("dualpipe-v", 4, 9, 2),
    ("hanayo", 4, 8, 4),
    ("braided-interleaved", 4, 8, 2),
]


def _order(case: tuple[str, int, int, int]) -> Order:
    name, ranks, microbatches, chunks = case
    return make_order(name, ranks, microbatches, chunks)


@pytest.mark.parametrize("case", ORDERS, ids=str)
def test_torch_loads_and_lowers_our_orders(case: tuple[str, int, int, int], tmp_path: Path) -> None:
    """Both forms pass torch's own loader and validator; what it makes of the first is the second."""
    order = _order(case)
    for form in ("compute_only", "compute_comms"):
        write_torch_csv(order, tmp_path / f"{form}.csv", form)
    lowering, loading = (
        maker.make_runtime(order.num_ranks, order.num_microbatches, order.num_stages) for _ in range(2)
    )

    lowering._load_csv(tmp_path / "compute_only.csv", format="compute_only")
    loading._load_csv(tmp_path / "compute_comms.csv", format="compute_comms")

    ours = read_torch_csv(tmp_path / "compute_comms.csv")
    assert (
        _cells(lowering.pipeline_order_with_comms)
        == _cells(loading.pipeline_order_with_comms)
        == ours.cells()
    )
    assert lowering.stage_index_to_group_rank == {
        stage: held[0] for stage, held in enumerate(order.placement)
    }
    assert [actions.cells() for actions in passes_of(ours.order())] == [
        actions.cells() for actions in passes_of(order)
    ]


@pytest.mark.parametrize("case", ORDERS, ids=str)
def test_the_simulator_of_torch_runs_our_orders(case: tuple[str, int, int, int], tmp_path: Path) -> None:
    """It knows no collectives, so they are left out, and no overlaps: it fails on torch's own DualPipeV."""
    order = _order(case)
    write_torch_csv(order, tmp_path / "bare.csv", "compute_comms", unshard=False, reduce_grad=False)
    runtime = maker.make_runtime(order.num_ranks, order.num_microbatches, order.num_stages)
    runtime._load_csv(tmp_path / "bare.csv", format="compute_comms")

    if any((order.works(rank).braid >= 0).any() for rank in range(order.num_ranks)):
        with pytest.raises(KeyError):
            runtime._simulate()
        return
    assert _cells(runtime._simulate()) == read_torch_csv(tmp_path / "bare.csv").cells()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("0F0,0SEND_F0,0RECV_B0,0B0\n1F0,1B0,1SEND_B0\n", "message.missing"),
        ("0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "message.early"),
        ("0F0,0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "pass.twice"),
        ("0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD\n1RECV_F0,1F0,1REDUCE_GRAD,1B0,1SEND_B0\n", "reduce.early"),
        ("0RESHARD,0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "gather.early"),
    ],
)
def test_torch_loads_what_is_wrong_and_we_do_not(text: str, rule: str, tmp_path: Path) -> None:
    """Its validator says nothing to a missing RECV, a SEND before its F, an F that stands twice."""
    (tmp_path / "wrong.csv").write_text(text, encoding="ascii")

    maker.make_runtime(2, 1, 2)._load_csv(tmp_path / "wrong.csv", format="compute_comms")

    assert rule in {finding.rule for finding in check_torch(parse_torch_csv(text)).findings if finding.error}


@pytest.mark.parametrize(("cell", "read"), [("0BFOO", "0B"), ("0SEND_F3x", "0SEND_F3"), ("0F0 0F1", "0F0")])
def test_torch_reads_the_beginning_of_a_cell(cell: str, read: str) -> None:
    """Which is why the reader here says so, and refuses."""
    from torch.distributed.pipelining.schedules import _Action

    assert str(_Action.from_str(cell)) == read
    with pytest.raises(Exception, match="no action") as caught:
        parse_torch_csv(f"{cell},0B0\n")
    assert read in str(caught.value)


def test_deferred_receives_hang_where_a_pair_of_ranks_shares_a_queue(tmp_path: Path) -> None:
    """Of six schedules at three sizes only LoopedBFS on more than two ranks ends.

    With a queue for each peer, direction and class all of them do.
    """
    hang: dict[ChannelModel, set[tuple[str, int, int]]] = {model: set() for model in ChannelModel}
    cases = [(name, p, v) for p in (2, 4, 8) for name in MULTI for v in (2, 4) if v == 2 or name == MULTI[0]]
    for name, p, v in cases:
        schedule = maker.make_schedule(name, p, 3 * p, v, defer_pp_recv=True)
        schedule._dump_csv(tmp_path / "deferred.csv", format="compute_comms")
        read = read_torch_csv(tmp_path / "deferred.csv")
        rank_of = [held[0] for held in read.placement]
        times = WorkTimes.unit(read.num_stages)
        for model in ChannelModel:
            if run_channels(read.ranks, rank_of, 3 * p, model, times).makespan_ns is None:
                hang[model].add((name, p, v))

    assert len(cases) == 18
    assert set(cases) - hang[ChannelModel.PAIR] == {("LoopedBFS", 4, 2), ("LoopedBFS", 8, 2)}
    assert hang[ChannelModel.CLASS] == set()


@pytest.mark.parametrize(
    ("case", "form"),
    [
        (("zb-h1", 2, 4, 1), "compute_comms"),
        (("interleaved-1f1b", 2, 4, 2), "compute_comms"),
        (("1f1b", 2, 3, 1), "compute_only"),
        (("zb-v", 2, 4, 2), "compute_only"),
        (("dualpipe-v", 2, 4, 2), "compute_comms"),
    ],
    ids=str,
)
def test_torch_trains_by_our_files(case: tuple[str, int, int, int], form: str, tmp_path: Path) -> None:
    """A step of its pipeline runtime over gloo, two processes: the gradients are those of the whole model."""
    pipeline = _load(HERE / "torch_pipeline.py")
    order = _order(case)
    write_torch_csv(order, tmp_path / "schedule.csv", form)
    numbers = (order.num_ranks, order.num_microbatches, order.num_stages)

    ranks = [
        subprocess.Popen(
            [sys.executable, HERE / "torch_pipeline.py"]
            + [str(value) for value in (rank, *numbers, form, tmp_path / "schedule.csv", tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for rank in range(order.num_ranks)
    ]
    try:
        assert [rank.wait(RUN_LIMIT_S) for rank in ranks] == [0] * len(ranks)
    finally:
        for rank in ranks:
            rank.kill()

    layers = pipeline.make_layers(order.num_stages)
    inputs, targets = pipeline.make_batch(order.num_microbatches)
    torch.nn.functional.mse_loss(torch.nn.Sequential(*layers)(inputs), targets).backward()
    for stage, layer in enumerate(layers):
        found = torch.load(tmp_path / f"stage{stage}.pt")
        for gradient, parameter in zip(found, layer.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-12, atol=1e-14)
