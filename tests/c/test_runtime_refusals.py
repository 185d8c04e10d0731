"""Valid plans that the engine does not execute: each is refused by the name of what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from any_order import any_order, crossed
from engine_case import Case, edit, make_data
from plain_plan import PlainPlan

from exactmap.backend_c.run import RunOptions, check_support, run_plan
from exactmap.errors import ExactmapError
from exactmap.sim.schedules.build import OptimizerSettings
from exactmap.sim.schedules.order import Order, loop_placement

pytestmark = pytest.mark.sanitize


def order(**features: object) -> Order:
    return any_order(1, 2, loop_placement(2, 1), **features)  # type: ignore[arg-type]


def twins() -> Order:
    return any_order(1, 2, crossed(2))


CASE = Case(m=2)
PAIR = Case(m=2, dp=2)
LATE = PlainPlan(CASE, order(), late=True)
SHARDED = PlainPlan(PAIR, order(), sharded=True)


def without(*patterns: str) -> Callable[[str], str]:
    """Drop the lines that match."""

    def change(text: str) -> str:
        for pattern in patterns:
            assert re.search(pattern, text, re.MULTILINE), pattern
            text = re.sub(rf"^(?:{pattern})\n", "", text, flags=re.MULTILINE)
        return text

    return change


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Change all that matches."""

    def change(text: str) -> str:
        assert re.search(old, text, re.MULTILINE), old
        return re.sub(old, new, text, flags=re.MULTILINE)

    return change


REFUSED: dict[str, tuple[PlainPlan, Callable[[str], str], str]] = {
    "twins that are not summed": (
        PlainPlan(CASE, twins()),
        lambda text: without(r"(AR|WC) \d/0@twin0_1")(text).replace(" reduce=twin0_1", ""),
        r"a.plan:\d+: engine.unsupported: bucket 0/0 is not reduced over the ranks of its stage",
    ),
    "replicas that are not summed": (
        PlainPlan(PAIR, order()),
        lambda text: without(r"(AR|WC) \d/0@dp")(text).replace(" reduce=dp", ""),
        r"a.plan:\d+: engine.unsupported: bucket 0/0 is not reduced over the replicas",
    ),
    "a scan that is never checked": (
        LATE,
        without("CHK @chk", "WC @chk", "PV .*", "UNDO .*", "group chk .*"),
        r"a.plan:\d+: engine.unsupported: a NORM that scans without a CHK",
    ),
    "a check of a norm that all know": (
        LATE,
        replaced("axes=pp scan=up", "axes=pp"),
        r"a.plan:\d+: engine.unsupported: a CHK without a NORM that scans",
    ),
    "a check that goes the same way": (
        LATE,
        replaced("scan=down", "scan=up"),
        r"a.plan:\d+: engine.unsupported: a CHK that does not scan all the way back \(group chk\)",
    ),
    "an update that cannot be taken back": (
        LATE,
        without("UNDO 1/0"),
        r"a.plan:\d+: engine.unsupported: a CHK with 0 UNDOs of 1 buckets",
    ),
    "a norm of some ranks": (
        PlainPlan(CASE, order()),
        replaced("group norm axes=pp", "group norm axes=dp"),
        r"a.plan:\d+: engine.unsupported: a NORM over some pipeline ranks alone \(group norm\)",
    ),
    "a norm of one replica's shards": (
        SHARDED,
        without("NORM @shards", "WC @shards"),
        r"a.plan:\d+: engine.unsupported: a NORM of sharded buckets that does not span dp",
    ),
    "norms in another order": (
        SHARDED,
        lambda text: text.replace("@norm", "@none").replace("@shards", "@norm").replace("@none", "@shards"),
        r"a.plan:\d+: engine.unsupported: a NORM over some pipeline ranks alone \(group shards\)",
    ),
    "three norms": (
        SHARDED,
        replaced("^NORM @norm$", "NORM @shards\nWC @shards\nNORM @norm"),
        r"a.plan:\d+: engine.unsupported: a third NORM",
    ),
    "an early step of the optimizer": (
        PlainPlan(Case(m=2, optimizer=OptimizerSettings(clip=0.0)), order()),
        replaced("^(NORM @norm)\n(WC @norm)\n(OPT ./0)$", r"\3\n\1\n\2"),
        r"a.plan:\d+: engine.unsupported: an OPT before the NORM is known",
    ),
    "shards over something else than replicas": (
        PlainPlan(PAIR, any_order(1, 2, loop_placement(1, 1)), sharded=True),
        lambda text: text.replace("group dp axes=dp", "group dp axes=pp,dp"),
        r"a.plan:\d+: engine.unsupported: bucket 0/0 is sharded over another group than one over dp",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_is_not_executed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Plans that were changed so that they are still valid; the engine says why it does not run them."""
    plan, change, message = REFUSED[name]
    path = edit(plan.write(tmp_path / "a.plan"), change)
    with pytest.raises(ExactmapError, match=message):
        check_support(path)


def test_shards_that_several_groups_sum_are_summed_once_a_step(tmp_path: Path) -> None:
    """Two gradients of a step, each cut into shards and then summed over twins, would add the first twice."""
    plan = PlainPlan(Case(m=4, dp=2), any_order(1, 4, crossed(2)), sharded=True, rounds=2)
    with pytest.raises(ExactmapError, match="a second RS of a bucket that several groups reduce"):
        plan.write(tmp_path / "a.plan")


def test_parts_of_a_pass_are_refused() -> None:
    """Parts let traffic over other axes stand between them, of which this engine has none."""
    plan = Path(__file__).parents[1] / "golden" / "plans" / "valid" / "parts.plan"
    with pytest.raises(ExactmapError, match=r"engine.unsupported: .*(parts|[a-z]+=\d)"):
        check_support(plan)


@pytest.mark.parametrize("letter", "ko")
def test_a_slot_of_another_size_is_refused(letter: str, tmp_path: Path) -> None:
    """Keys and values, and stashes in host memory, are held against the engine's own need as all are."""
    plan = PlainPlan(CASE, order(slices=2, away=(0,)))
    path = plan.write(tmp_path / "a.plan")
    pool = re.search(rf"pool pp=0 {letter} n=\d+ bytes=(\d+)", path.read_text())
    assert pool is not None
    edit(path, lambda text: text.replace(pool[0], pool[0].replace(pool[1], str(int(pool[1]) - 64))))
    with pytest.raises(
        ExactmapError, match=rf"engine.bytes: pool pp=0 {letter}: got \d+ .* expected {pool[1]}"
    ):
        check_support(path)


def test_a_validation_that_finds_no_room_is_refused(tmp_path: Path) -> None:
    """It needs the keys and values of all of a rank's stages at once, where one microbatch may need one."""
    data = make_data(tmp_path).folder
    one = PlainPlan(Case(m=1), any_order(1, 1, crossed(2), slices=2)).write(tmp_path / "a.plan")

    run_plan(one, data, RunOptions(steps=1, timeout_s=60.0))
    with pytest.raises(ExactmapError, match=r"engine.unsupported: a validation needs 2 k slots on rank 0"):
        run_plan(one, data, RunOptions(steps=1, eval_sequences=2, timeout_s=60.0))
