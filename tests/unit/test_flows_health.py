"""Lost and slow links: names, what is left of each GPU's rate, routes around them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.flows.bundles import Bundles
from exactmap.topology.flows.detour import live_routes
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.health import Health, find_links, rates_out_of_leaf
from exactmap.topology.links import Ints, Routes

# 8 leaves of 4 GPUs at 10 GB/s with 4 uplinks each; 4 spines.
SWITCH = Switch("small", 8, 10**10, 8, 100, 100)
SPEC = FabricSpec(kind=FabricKind.FAT_TREE, switches=(SWITCH,))


@cache
def tree(num_gpus: int = 32, spec: FabricSpec = SPEC) -> FatTree:
    """A small fat tree of interfaces of 10 GB/s."""
    cluster = load_cluster("h100-8")
    out = replace(cluster.scale_out, bytes_per_s=10**10)
    fabric = build_fabric(replace(cluster, num_gpus=num_gpus, gpus_per_host=4, scale_out=out, fabric=spec))
    assert isinstance(fabric, FatTree)
    return fabric


def links(fabric: FatTree, *names: str) -> Ints:
    """Links by name, both directions."""
    return np.concatenate(find_links(fabric.links, names))


def shares_out_of(fabric: FatTree, routes: Routes, flow: int) -> dict[str, float]:
    """Shares of one flow by name of link."""
    row = slice(routes.start[flow], routes.start[flow + 1])
    names = map(fabric.links.name, routes.link[row].tolist())
    return dict(zip(names, routes.share[row].tolist(), strict=True))


def test_a_name_means_both_directions_and_all_cables() -> None:
    """What names no single cable names all between two switches."""
    table = tree().links
    assert [table.name(link) for link in links(tree(), "leaf 3 > spine 1").tolist()] == [
        "leaf 3 > spine 1",
        "spine 1 > leaf 3",
    ]
    two_cables = tree(16)
    names = [two_cables.links.name(link) for link in links(two_cables, "leaf 1 > spine 0").tolist()]
    assert names == [
        "leaf 1 > spine 0 cable 0",
        "leaf 1 > spine 0 cable 1",
        "spine 0 > leaf 1 cable 0",
        "spine 0 > leaf 1 cable 1",
    ]
    one = [two_cables.links.name(link) for link in links(two_cables, "leaf 1 > spine 0 cable 1").tolist()]
    assert one == [names[1], names[3]]


@pytest.mark.parametrize("name", ["leaf 3 > spine 9", "leaf 3", "gpu 99 > leaf 0", "", "spine 0 > spine 1"])
def test_a_name_that_nothing_has(name: str) -> None:
    """It is refused, with one that there is."""
    with pytest.raises(
        InvalidInputError, match=r"there is no such link: got .* expected a name such as 'gpu 0 >"
    ):
        find_links(tree().links, [name])


def test_factors_are_parts() -> None:
    """Neither more than a link's rate nor less than nothing is left of it."""
    with pytest.raises(InvalidInputError, match=r"no such part of its rate: got 1\.5"):
        Health(np.array([0]), np.array([1.5]))


def test_named_twice_the_least_counts() -> None:
    """A link that is slow and lost is lost."""
    health = Health(np.array([5, 5, 7]), np.array([0.5, 0.0, 0.25]))
    assert health.of(np.array([4, 5, 6, 7])).tolist() == [1.0, 0.0, 1.0, 0.25]
    capacity = health.capacity(tree().links)
    assert capacity[4:8].tolist() == [1e10, 0.0, 1e10, 0.25e10]


def test_a_lost_uplink_costs_its_leaf_a_quarter() -> None:
    """4 GPUs share 3 uplinks; a slow one counts in part, or holds up all that are dealt out evenly."""
    fabric = tree()
    lost = links(fabric, "leaf 3 > spine 1")
    rates = rates_out_of_leaf(fabric.links, Health.lost(lost))
    on_leaf = fabric.leaf(np.arange(32)) == 3
    assert rates[on_leaf].tolist() == [0.75e10] * 4
    assert rates[~on_leaf].tolist() == [1e10] * 28
    half = Health(lost, np.full(2, 0.5))
    assert rates_out_of_leaf(fabric.links, half)[on_leaf].tolist() == [0.875e10] * 4
    assert rates_out_of_leaf(fabric.links, half, minds_rates=False)[on_leaf].tolist() == [0.5e10] * 4


def test_a_slow_interface_leaves_its_part_to_the_others() -> None:
    """Of 3 uplinks one GPU takes a tenth, the others share the rest."""
    fabric = tree()
    port = links(fabric, "gpu 13 > leaf 3")
    lost = links(fabric, "leaf 3 > spine 1")
    health = Health(np.concatenate((lost, port)), np.array([0.0, 0.0, 0.1, 0.1]))
    rates = rates_out_of_leaf(fabric.links, health)[12:16]
    assert rates == pytest.approx([(3e10 - 1e9) / 3, 1e9, (3e10 - 1e9) / 3, (3e10 - 1e9) / 3])


def test_planes_add_up() -> None:
    """With two planes of 5 GB/s a lost uplink of one costs an eighth; a lost port half."""
    spec = FabricSpec(kind=FabricKind.FAT_TREE, switches=(Switch("s", 8, 5 * 10**9, 8, 100, 100),), planes=2)
    fabric = tree(32, spec)
    one = links(fabric, "leaf 3 > spine 1 plane 1")
    assert len(one) == 2
    assert rates_out_of_leaf(fabric.links, Health.lost(one))[12:16].tolist() == [0.875e10] * 4
    port = links(fabric, "gpu 0 > leaf 0 plane 0")
    assert rates_out_of_leaf(fabric.links, Health.lost(port))[:2].tolist() == [0.5e10, 1e10]


def test_the_analytic_rates_are_those_of_flows() -> None:
    """All GPUs of the leaf send to another one, sprayed around what is lost."""
    fabric = tree()
    health = Health(links(fabric, "leaf 3 > spine 1", "leaf 3 > spine 2"), np.array([0.0, 0.0, 0.5, 0.5]))
    source = np.arange(12, 16)
    routes = live_routes(fabric, source, source + 4, health, spread=Spread.SPRAY)
    found = fair_rates(routes, health.capacity(fabric.links))
    assert found == pytest.approx(rates_out_of_leaf(fabric.links, health)[12:16])
    even = live_routes(fabric, source, source + 4, health, spread=Spread.SPRAY, minds_rates=False)
    found = fair_rates(even, health.capacity(fabric.links))
    assert found == pytest.approx(rates_out_of_leaf(fabric.links, health, minds_rates=False)[12:16])


def test_spraying_goes_around_at_both_ends() -> None:
    """A lost uplink of the receiver's leaf is avoided by the sender already: it leads nowhere."""
    fabric = tree()
    health = Health.lost(links(fabric, "leaf 5 > spine 2"))
    routes = live_routes(fabric, np.array([0, 0]), np.array([20, 8]), health, spread=Spread.SPRAY)
    third = 1.0 / 3.0
    assert shares_out_of(fabric, routes, 0) == pytest.approx(
        {"gpu 0 > leaf 0": 1.0, "leaf 5 > gpu 20": 1.0}
        | {f"leaf 0 > spine {spine}": third for spine in (0, 1, 3)}
        | {f"spine {spine} > leaf 5": third for spine in (0, 1, 3)}
    )
    assert shares_out_of(fabric, routes, 1)["leaf 0 > spine 2"] == 0.25


def test_shares_follow_the_rates_of_links() -> None:
    """Half a link gets half of what a whole one gets, unless packets are dealt out evenly."""
    fabric = tree()
    health = Health(links(fabric, "leaf 0 > spine 2"), np.full(2, 0.5))
    pair = (np.array([0]), np.array([20]))
    minding = live_routes(fabric, *pair, health, spread=Spread.SPRAY)
    assert shares_out_of(fabric, minding, 0)["leaf 0 > spine 2"] == pytest.approx(0.5 / 3.5)
    even = live_routes(fabric, *pair, health, spread=Spread.SPRAY, minds_rates=False)
    assert shares_out_of(fabric, even, 0)["leaf 0 > spine 2"] == 0.25


@pytest.mark.parametrize("seed", range(5))
def test_ecmp_avoids_what_is_lost(seed: int) -> None:
    """No flow crosses a lost link, none that did not has moved, every path is whole."""
    fabric = tree()
    rng = np.random.default_rng(seed)
    source = rng.integers(32, size=300)
    target = (source + rng.integers(1, 32, size=300)) % 32
    # A leaf keeps one uplink only: hashing again does not find it each time.
    names = [f"leaf 3 > spine {spine}" for spine in range(3)] + ["leaf 6 > spine 0"]
    health = Health.lost(links(fabric, *names))
    before = fabric.routes(source, target, spread=Spread.ECMP, seed=seed)
    after = live_routes(fabric, source, target, health, spread=Spread.ECMP, seed=seed)
    assert (health.of(after.link) > 0.0).all()
    assert (np.diff(after.start) == np.diff(before.start)).all()
    for flow in range(300):
        old = before.link[before.start[flow] : before.start[flow + 1]]
        new = after.link[after.start[flow] : after.start[flow + 1]]
        if (health.of(old) > 0.0).all():
            assert old.tolist() == new.tolist()
        tail, head = fabric.links.ends(np.sort(new))
        steps = dict(zip(tail.tolist(), head.tolist(), strict=True))
        node = int(source[flow])
        for _ in range(len(new)):
            node = steps[node]
        assert node == target[flow]


@pytest.mark.parametrize("spread", list(Spread))
def test_who_is_cut_off_is_named(spread: Spread) -> None:
    """No live path: the pair, and which of its links are lost."""
    fabric = tree()
    health = Health.lost(links(fabric, *(f"leaf 3 > spine {spine}" for spine in range(4))))
    with pytest.raises(
        InfeasibleError, match="lost links cut a GPU off: got no path from gpu 12 to gpu 0"
    ) as error:
        live_routes(fabric, np.array([1, 12]), np.array([2, 0]), health, spread=spread)
    assert "leaf 3 > spine 0" in str(error.value)


def test_bundles_are_the_links_that_spraying_loads_alike() -> None:
    """Rates over bundles and over links are the same, in two and three tiers, one plane and two."""
    two_planes = replace(SPEC, planes=2, switches=(replace(SWITCH, port_bytes_per_s=5 * 10**9),))
    for fabric in (
        tree(),
        tree(120),
        tree(120, two_planes),
        tree(100, replace(SPEC, oversubscription=(3.0,))),
    ):
        rng = np.random.default_rng(1)
        source = rng.integers(fabric.num_gpus, size=400)
        target = (source + rng.integers(1, fabric.num_gpus, size=400)) % fabric.num_gpus
        routes = fabric.routes(source, target, spread=Spread.SPRAY)
        whole = fair_rates(routes, Health.whole().capacity(fabric.links))
        bundles = Bundles(fabric)
        every = np.arange(bundles.num_links)
        found = fair_rates(bundles.routes(source, target), bundles.capacity_bytes_per_s(every))
        assert found == pytest.approx(whole, rel=1e-12)
        assert bundles.num_cables(every).sum() == fabric.links.num_links


def test_bundles_know_their_links() -> None:
    """Each link of the fabric belongs to one; a lost one takes its rate out of it."""
    fabric = tree(120)
    bundles = Bundles(fabric)
    counts = np.bincount(bundles.bundle(np.arange(fabric.links.num_links)), minlength=bundles.num_links)
    assert counts.tolist() == bundles.num_cables(np.arange(bundles.num_links)).tolist()
    lost = links(fabric, "leaf 3 > spine 1")
    left = Bundles(fabric, Health.lost(lost)).capacity_bytes_per_s(np.arange(bundles.num_links))
    full = bundles.capacity_bytes_per_s(np.arange(bundles.num_links))
    changed = {
        bundles.name(place): left[place] / full[place] for place in np.flatnonzero(left < full).tolist()
    }
    up, down = changed
    assert up.startswith("leaf 3 > spines")
    assert down.startswith("spines > leaf 3")
    assert list(changed.values()) == [0.75, 0.75]
