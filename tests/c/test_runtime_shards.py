"""Parameters, gradients and moments cut over the replicas."""

from __future__ import annotations

from pathlib import Path

import pytest
from any_order import any_order
from engine_case import Case, make_data
from engine_runs import PLACEMENTS, check_first_gradients, losses, one_f_one_b, run
from plain_plan import PlainPlan

from exactmap.sim.plan.reader import read_plan
from exactmap.sim.schedules.order import loop_placement

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize(
    ("kind", "placement", "rounds"),
    [
        *((kind, placement, 1) for kind in ("llama", "gpt") for placement in PLACEMENTS),
        ("llama", "loop2", 2),
        ("llama", "loop4", 2),
        ("gpt", "loop1", 2),
    ],
)
def test_shards_learn_what_whole_parameters_learn(
    kind: str, placement: str, rounds: int, late: bool, data: Path, tmp_path: Path
) -> None:
    """Parameters, gradients and moments cut over three replicas; gathered for passes and for checkpoints."""
    case = Case(kind=kind, tied=kind == "gpt", dp=3, m=2)
    order = any_order(9, case.m, PLACEMENTS[placement])
    plan = PlainPlan(case, order, sharded=True, rounds=rounds, late=late)
    got = run(plan, data, tmp_path, eval_sequences=5, out=tmp_path / "out")
    expected = one_f_one_b(case.having(pp=order.num_ranks), data, tmp_path, eval_sequences=5)

    assert losses(got) == pytest.approx(losses(expected), rel=1e-6)
    assert got.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
    norms = [step.grad_norm for step in expected.history]
    assert [step.grad_norm for step in got.history] == pytest.approx(norms, rel=1e-5)
    assert got.step_allocations == 0
    run(plan, data, tmp_path, steps=3, out=tmp_path / "half")
    rest = run(plan, data, tmp_path, resume=tmp_path / "half", out=tmp_path / "rest")
    assert losses(rest) == pytest.approx(losses(got)[3:], rel=1e-7 if late else 0)
    if not late:
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "rest" / name).read_bytes()


def test_a_shard_takes_its_part_of_the_bytes(data: Path, tmp_path: Path) -> None:
    """At rest a third of each bucket, filled up to equal parts; two slots hold the largest one whole."""
    case = Case(dp=3, m=2)
    plan = PlainPlan(case, any_order(9, case.m, loop_placement(2, 1)), sharded=True).write(
        tmp_path / "a.plan"
    )
    parsed = read_plan(plan.read_bytes(), "a.plan")
    regions = {(region.pp, region.kind): region.bytes for region in parsed.regions}
    pools = {(pool.pp, pool.letter): pool.bytes for pool in parsed.pools}
    for rank in range(2):
        (bucket,) = [bucket for bucket in parsed.buckets if bucket.stage == rank]

        assert bucket.elements % 48 == 0
        assert regions[rank, "params"] == regions[rank, "grads"] == 4 * bucket.elements // 3
        assert regions[rank, "moments"] == 8 * bucket.elements // 3
        assert pools[rank, "p"] == pools[rank, "q"] == 4 * bucket.elements
    check_first_gradients(
        PlainPlan(case, any_order(9, case.m, loop_placement(2, 1)), sharded=True), data, tmp_path
    )
