"""Exact maps as their users meet them: 64 of 72, dead GPUs, rails, stages, and what costs make of them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from map_cases import small_cluster

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.links import price_channels
from exactmap.sim.plan.plan import Channel
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.collectives import hop_time
from exactmap.topology.exact_map import tiers
from exactmap.topology.exact_map.budget import RackCount, count_gpus
from exactmap.topology.exact_map.crossing import axis_traffic
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.map_file import find_runs, write_map
from exactmap.topology.exact_map.map_reader import read_map
from exactmap.topology.exact_map.place import exact_map_of, fabric_of
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.fabric.spec import FabricKind, FabricSpec
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, GroupShape, Mesh, Tier

ROOT = Path(__file__).parents[2]
RACKS = replace(load_cluster("gb300-nvl72"), num_gpus=220_000, used_per_domain=64)
_SWITCHES = RACKS.fabric.switches
LAYOUT = Mesh(tp=16, cp=2, pp=96, dp=63)


def asked(
    cluster: Cluster, exclude: tuple[str, ...] = (), require: tuple[str, ...] = (), spares: str = "gpus"
) -> Cluster:
    request = MapRequest(
        spares=Spares(spares),
        exclude=tuple(map(Exclusion.parse, exclude)),
        require=tuple(map(Constraint.parse, require)),
    )
    return replace(cluster, map_request=request)


def test_the_gpus_of_220000_are_all_accounted_for() -> None:
    budget = count_gpus(exact_map_of(RACKS, LAYOUT))

    assert (budget.installed, budget.usable, budget.used) == (220_000, 3055 * 64 + 40, 193_536)
    assert (budget.num_racks_at_work, budget.spare) == (3024, 3024 * 8)
    assert (budget.num_idle_racks, budget.idle) == (32, 31 * 72 + 40)
    assert budget.used + budget.spare + budget.idle + budget.excluded == budget.installed
    assert budget.racks == (RackCount(3024, 64, 8, 0), RackCount(31, 0, 72, 0), RackCount(1, 0, 40, 0))
    assert "220,000 is no multiple of 72: 3,055 racks of 72 and 40 GPUs" in budget.reasons
    assert budget.reasons[-1].endswith("2,024 usable GPUs remain, one more replica takes 3,072")


def test_a_rack_with_two_dead_gpus_still_gives_a_whole_group() -> None:
    """70 of 72 hold one tensor-parallel group of 64; without the promise groups run over racks' ends."""
    cluster = replace(RACKS, num_gpus=720, used_per_domain=72)
    dead = ("gpu 3", "gpu 70")
    kept = exact_map_of(asked(cluster, dead, ("tp within rack",)), Mesh(tp=64, dp=10))
    loose = exact_map_of(asked(cluster, dead), Mesh(tp=64, dp=10))

    assert kept.group_shape([Axis.TP]) == GroupShape(64, 64, 1)
    assert np.bincount(kept.machine.rack(kept.gpu)).tolist() == [64] * 10
    # Racks end after 70, 142, .., 574 ranks: 574 = 9 x 64 - 2 cuts the last 2 off the ninth group.
    assert loose.group_shape([Axis.TP]).per_domain == 2
    assert loose.hop_tier(Axis.TP) is Tier.SCALE_OUT


def test_a_rack_with_too_many_dead_gpus_stays_idle() -> None:
    laid = exact_map_of(
        asked(replace(RACKS, num_gpus=288), ("gpu 0..8",), ("tp within rack",)), Mesh(tp=64, dp=3)
    )

    assert sorted(set(laid.machine.rack(laid.gpu).tolist())) == [1, 2, 3]
    assert RackCount(1, 0, 63, 9) in count_gpus(laid).racks


def test_spares_by_trays_leave_out_the_tray_of_a_dead_gpu_first() -> None:
    """16 of 18 trays: the broken one and the last."""
    laid = exact_map_of(asked(replace(RACKS, num_gpus=72), ("gpu 9",), spares="trays"), Mesh(tp=64))

    assert sorted(set(laid.machine.host(laid.gpu).tolist())) == [0, 1, *range(3, 17)]
    assert np.bincount(laid.machine.host(laid.gpu)).tolist() == [4, 4, 0, *[4] * 14]


@pytest.mark.parametrize("spares", ["rails", "trays"])
def test_rings_stay_on_rails_beside_a_dead_gpu(spares: str) -> None:
    """Leaving out single GPUs shifts all ranks after the dead one to the next rail."""
    cluster = replace(RACKS, num_gpus=72 * 40)
    mesh = Mesh(tp=16, cp=2, dp=40)
    shifted = axis_traffic(exact_map_of(asked(cluster, ("gpu 73",)), mesh), Axis.DP)
    straight = axis_traffic(exact_map_of(asked(cluster, ("gpu 73",), spares=spares), mesh), Axis.DP)

    assert straight.outside == shifted.outside == 40 * 32
    assert straight.on_rail == straight.outside
    assert shifted.on_rail < shifted.outside
    exact_map_of(asked(cluster, ("gpu 73",), ("dp along rails",), spares), mesh)


def test_stages_in_whole_racks() -> None:
    """A stage of 2,016 ranks ends in the middle of a rack: the next one starts at the next rack."""
    mesh = Mesh(tp=16, cp=2, pp=48, dp=63)
    laid = exact_map_of(asked(RACKS, require=("pp stages whole racks",)), mesh)

    racks = laid.machine.rack(laid.gpu).reshape(48, -1)
    assert racks[:, 0].tolist() == [32 * stage for stage in range(48)]
    assert racks[:, -1].tolist() == [32 * stage + 31 for stage in range(48)]


def test_an_excluded_leaf_takes_its_gpus_out() -> None:
    cluster = small_cluster(128, 8, 4, 8, rails=4)
    fabric = exact_map_of(cluster, Mesh()).fabric_of
    assert fabric is not None
    leaves = fabric().leaf(np.arange(128))
    laid = exact_map_of(asked(cluster, ("leaf 3",)), Mesh(dp=int((leaves != 3).sum())))

    assert 3 not in leaves[laid.gpu]
    assert count_gpus(laid).excluded == int((leaves == 3).sum()) > 0


def test_an_ideal_fabric_has_no_leaf_to_lose() -> None:
    with pytest.raises(InvalidInputError, match="has no leaves to leave out"):
        exact_map_of(asked(replace(load_cluster("cpu-host"), num_gpus=4), ("leaf 0",)), Mesh())


def test_the_order_of_axes_decides_what_is_near() -> None:
    """With pp before dp a replica's stages are neighbours, and the data-parallel ring goes far."""
    near = Mesh(tp=8, pp=8, dp=40, order=(Axis.TP, Axis.CP, Axis.EP, Axis.PP, Axis.DP))
    far = Mesh(tp=8, pp=8, dp=40)

    assert exact_map_of(RACKS, near).hop_tier(Axis.PP) is Tier.SCALE_UP
    assert exact_map_of(RACKS, far).hop_tier(Axis.PP) is Tier.SCALE_OUT
    assert exact_map_of(RACKS, near).group_shape([Axis.DP]).per_domain == 1
    assert exact_map_of(RACKS, far).group_shape([Axis.DP]).per_domain == 8


def test_hops_and_links_add_up() -> None:
    """Each hop between racks has one link up and one down at its ends, and climbs to one tier."""
    laid = exact_map_of(RACKS, LAYOUT)
    ring, stages = axis_traffic(laid, Axis.DP), axis_traffic(laid, Axis.PP)

    assert ring.outside == LAYOUT.num_ranks == sum(ring.by_tier)
    assert stages.outside == 95 * 2016
    assert axis_traffic(laid, Axis.TP).inside == LAYOUT.num_ranks
    assert axis_traffic(laid, Axis.EP).outside == axis_traffic(laid, Axis.EP).inside == 0
    for traffic in (ring, stages):
        flows = {use.tier: round(use.num_links * use.mean_flows) for use in traffic.links}
        climbs = [0, *traffic.by_tier]
        assert flows == {
            tier: 2 * sum(climbs[tier + 1 :])
            for tier in range(len(traffic.by_tier))
            if sum(climbs[tier + 1 :])
        }


@pytest.mark.parametrize(
    "spec",
    [
        FabricSpec(FabricKind.DUAL_TOR, _SWITCHES, rails=4),
        FabricSpec(FabricKind.FAT_TREE, _SWITCHES, planes=4, rails=4),
        FabricSpec(FabricKind.RAIL_ONLY, _SWITCHES, rails=4),
        FabricSpec(FabricKind.DRAGONFLY, _SWITCHES, shape=(16, 8, 8)),
        FabricSpec(FabricKind.TORUS, _SWITCHES, shape=(16, 16, 16)),
    ],
    ids=lambda spec: spec.kind,
)
def test_every_kind_of_fabric_tells_its_tiers(spec: FabricSpec) -> None:
    """Arithmetic and array agree on it, and each hop has one tier."""
    cluster = replace(RACKS, num_gpus=4096, fabric=spec)
    mesh = Mesh(tp=8, pp=8, dp=50)
    laid, placement = exact_map_of(cluster, mesh), cluster.place(mesh)

    for axis in (Axis.DP, Axis.PP):
        traffic = axis_traffic(laid, axis)
        assert placement.group_shape([axis]) == laid.group_shape([axis])
        assert placement.hop_fabric_tier(axis) == laid.hop_fabric_tier(axis) == len(traffic.by_tier)
        assert traffic.outside == {Axis.DP: mesh.num_ranks, Axis.PP: mesh.num_ranks * 7 // 8}[axis]
        assert sum(use.num_links for use in traffic.links) > 0


@pytest.mark.parametrize("seed", range(20))
def test_the_highest_tier_is_exact_where_a_sample_does_not_settle_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few pairs climb at all, the sample mostly misses them, and still all are looked at."""
    monkeypatch.setattr(tiers, "NUM_SAMPLED", 3)
    fabric_from = exact_map_of(small_cluster(512, 4, 4, 4), Mesh()).fabric_of
    assert fabric_from is not None
    fabric = fabric_from()
    random = np.random.default_rng(seed)
    first = random.integers(0, 512, 200)
    second = np.where(random.random(200) < 0.01, random.integers(0, 512, 200), first ^ 1)

    found = tiers.highest_tier(fabric, 200, lambda items: (first[items], second[items]))
    assert found == fabric.tier_between(first, second).max()


def test_messages_pay_for_the_tier_that_they_climb_to() -> None:
    """With half the rate above the leaves a channel that leaves its leaf takes twice as long on the wire."""
    cluster = small_cluster(256, 4, 4, 4)
    tight = replace(cluster, fabric=replace(cluster.fabric, oversubscription=(2.0,)))
    mesh = Mesh(tp=4, pp=64)
    channel = [Channel("c", 0, 1, "F", 1, 2**24), Channel("d", 0, 63, "F", 1, 2**24)]
    near, far = price_channels(channel, mesh, tight).values()
    placement = tight.place(mesh)

    assert placement.pair_fabric_tier(Axis.PP, 0, 1) == 1
    assert placement.pair_fabric_tier(Axis.PP, 0, 63) > 1
    assert far.wire_ns == hop_time(tight, Tier.SCALE_OUT, 2**24, 2).wire_ns
    assert 0 <= 2 * near.wire_ns - far.wire_ns <= 1  # each is rounded up
    assert far.lat_ns > near.lat_ns


def test_costs_see_dead_gpus_through_the_cluster() -> None:
    """`Cluster.place` answers from the exact map as soon as arithmetic cannot."""
    cluster = asked(replace(RACKS, num_gpus=144), ("gpu 1",))

    assert isinstance(cluster.place(Mesh(tp=64, dp=2)), ExactMap)
    assert cluster.usable_gpus == 128
    assert asked(cluster, ("rack 1",)).usable_gpus == 64
    assert cluster.place(Mesh(tp=64)) is cluster.place(Mesh(tp=64))


def test_the_example_of_the_format_page_is_read() -> None:
    page = (ROOT / "docs" / "reference" / "map-format.md").read_text(encoding="utf-8")
    text = page.split("```\n")[1].replace("plan sha256=...", f"plan sha256={'0' * 64}")
    head, _, body = text.split("\n", 2)
    seal = sha256(body.encode("ascii")).hexdigest()
    cluster = replace(RACKS, num_gpus=720)
    found = read_map(
        f"{head}\nbody sha256={seal}\n{body}".encode("ascii"), "page", lambda _machine: fabric_of(cluster)
    )

    asked_for = asked(cluster, ("gpu 17",), ("tp within rack",), "trays")
    assert found.exact_map.gpu.tolist() == exact_map_of(asked_for, Mesh(tp=8, pp=4, dp=16)).gpu.tolist()


def test_a_regular_map_of_220000_is_one_line() -> None:
    laid = exact_map_of(RACKS, LAYOUT)
    data = write_map(laid, cluster="gb300-nvl72")

    assert len(find_runs(laid.gpu)) == 1
    assert data.count(b"\nranks ") == 1
    assert len(data) < 1000
