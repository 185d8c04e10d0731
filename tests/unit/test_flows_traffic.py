"""Traffic on real fabrics: patterns, reports, what collides and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.fabric.build import BuiltFabric, build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.flows.health import Health, find_links
from exactmap.topology.flows.patterns import Traffic, all_to_all, incast, permutation, rail_rings, ring
from exactmap.topology.flows.traffic import traffic_report

GPUS = 1152
NIC = 1e11


@cache
def fabric(name: str = "gb300-nvl72", num_gpus: int = GPUS) -> BuiltFabric:
    """The fabric of a cluster of the catalog."""
    return build_fabric(replace(load_cluster(name), num_gpus=num_gpus))


def test_a_permutation_has_each_once_and_nobody_with_itself() -> None:
    """Whatever the seed; other seeds, other pairs."""
    gpus = np.arange(10, 50)
    for seed in range(5):
        traffic = permutation(gpus, seed=seed)
        assert sorted(traffic.first.tolist()) == sorted(traffic.second.tolist()) == gpus.tolist()
        assert (traffic.first != traffic.second).all()
    assert permutation(gpus, seed=1).second.tolist() != permutation(gpus, seed=2).second.tolist()
    assert permutation(gpus[:1]).num_flows == ring(gpus[:1]).num_flows == incast(gpus[:1]).num_flows == 0


def test_spraying_a_permutation_gives_everyone_its_interface() -> None:
    """On a fabric that is not oversubscribed; one path each leaves about 6 in 10."""
    traffic = permutation(np.arange(GPUS), seed=3)
    sprayed = traffic_report(fabric(), traffic, spread=Spread.SPRAY)
    assert (sprayed.bytes_per_s.least, sprayed.bytes_per_s.most) == (NIC, NIC)
    assert sprayed.collisions is None
    hashed = traffic_report(fabric(), traffic, spread=Spread.ECMP, seed=3)
    assert hashed.collisions is not None
    assert hashed.collisions.mean_if_sprayed == NIC
    assert 0.5 < hashed.bytes_per_s.mean / NIC < 0.7
    # The most loaded link is full and shared evenly by its flows: who is slowest.
    assert hashed.bytes_per_s.least == pytest.approx(NIC / hashed.collisions.most_flows)
    assert hashed.hot[0].num_flows == hashed.collisions.most_flows
    assert sum(n * links for n, links in hashed.collisions.links_by_flows.items()) == 2 * np.count_nonzero(
        fabric().leaf(traffic.first) != fabric().leaf(traffic.second)
    )


def test_more_paths_per_flow_collide_less() -> None:
    """16 queue pairs come nearer to spraying than one."""
    traffic = permutation(np.arange(GPUS), seed=3)
    means = [
        traffic_report(fabric(), traffic, spread=Spread.ECMP, paths=paths).bytes_per_s.mean
        for paths in (1, 4, 16)
    ]
    assert means == sorted(means)
    assert means[-1] > 1.3 * means[0]


def test_paths_are_dealt_out_over_planes() -> None:
    """One queue pair on four planes has a quarter of the interface at most; four have all of it."""
    ethernet = fabric("gb300-nvl72-ethernet")
    one_leaf = Traffic(np.arange(0, 72, 4), np.arange(72, 144, 4))
    rates = [
        traffic_report(ethernet, one_leaf, spread=Spread.ECMP, paths=paths).bytes_per_s for paths in (1, 4, 8)
    ]
    assert [(rate.least, rate.most) for rate in rates] == [(NIC / 4, NIC / 4), (NIC, NIC), (NIC, NIC)]


def test_seeds_decide() -> None:
    """The same seed gives the same report, another one another."""
    traffic = permutation(np.arange(GPUS), seed=0)
    reports = [traffic_report(fabric(), traffic, spread=Spread.ECMP, seed=seed) for seed in (1, 1, 2)]
    assert reports[0] == reports[1]
    assert reports[0].bytes_per_s != reports[2].bytes_per_s


def test_rings_along_rails_stay_under_their_leaves() -> None:
    """Four racks share leaves, rail by rail: rings on them never climb; shifted ones do, and collide."""
    good = traffic_report(fabric(), rail_rings(4, 72), spread=Spread.ECMP)
    assert good.bytes_per_s.least == NIC
    assert good.tiers[1].num_used == 0
    bad = traffic_report(fabric(), rail_rings(4, 72, shift=1), spread=Spread.ECMP)
    assert bad.collisions is not None
    assert bad.collisions.most_flows > 1
    assert sum(n * links for n, links in bad.collisions.links_by_flows.items()) == 2 * 288
    assert traffic_report(fabric(), rail_rings(4, 72, shift=1), spread=Spread.SPRAY).bytes_per_s.least == NIC


def test_incast_fills_the_receivers_interface() -> None:
    """63 senders get a 63rd each, and the link into the receiver is named."""
    report = traffic_report(fabric(), incast(np.arange(64)), spread=Spread.SPRAY, num_bytes=10**9)
    assert report.most_into_one == 63
    assert report.total_bytes_per_s == pytest.approx(NIC)
    assert (report.hot[0].name, report.hot[0].num_flows, report.hot[0].wanted) == ("leaf 0 > gpu 0", 63, 63.0)
    assert report.arrive_ns is not None
    assert 0.63e9 <= report.arrive_ns.least <= report.arrive_ns.most <= 0.63e9 + 2000


def test_all_to_all_shares_each_interface() -> None:
    """Each of n GPUs has n - 1 flows of an (n-1)th of its interface."""
    report = traffic_report(fabric(), all_to_all(np.arange(0, GPUS, 36)), spread=Spread.SPRAY)
    assert report.num_flows == 32 * 31
    assert report.bytes_per_s.least == report.bytes_per_s.most == pytest.approx(NIC / 31)
    assert report.hot == ()


def test_utilisation_over_time_adds_up_to_the_bytes() -> None:
    """Mean over time x rate of all interfaces x time = bytes out and in."""
    traffic = permutation(np.arange(GPUS), seed=5)
    report = traffic_report(fabric(), traffic, spread=Spread.ECMP, num_bytes=10**8)
    assert report.series is not None
    assert report.arrive_ns is not None
    # The last arrival is a few hops after the last end.
    end_s = (report.arrive_ns.most - 1000) / 1e9
    carried = float(np.mean(report.series[0])) * 2 * GPUS * NIC * end_s
    assert carried == pytest.approx(2 * GPUS * 1e8, rel=1e-3)
    assert report.series[1][0] > report.series[1][-1] > 0.0


def test_a_lost_uplink_shows_where_it_hurts() -> None:
    """Sprayed, 9 of 72 uplinks of a leaf lost: its flows get seven eighths at least, others keep theirs."""
    rails = rail_rings(16, 72, shift=1)
    lost = np.concatenate(find_links(fabric().links, ["leaf 3 > spine 1"]))
    report = traffic_report(fabric(), rails, spread=Spread.SPRAY, health=Health.lost(lost))
    assert report.bytes_per_s.least == pytest.approx(0.875 * NIC)
    assert report.bytes_per_s.median == pytest.approx(NIC)
    assert report.hot[0].name.startswith("leaf 3 > spine")


@pytest.mark.parametrize("name", ["gb300-nvl72-ethernet", "h100-8"])
def test_other_fabrics_of_the_catalog(name: str) -> None:
    """Planes and rails: sprayed permutations are not held back, hashed ones are."""
    traffic = permutation(np.arange(GPUS), seed=1)
    rate = load_cluster(name).scale_out.bytes_per_s
    assert traffic_report(fabric(name), traffic, spread=Spread.SPRAY).bytes_per_s.least == pytest.approx(rate)
    assert traffic_report(fabric(name), traffic, spread=Spread.ECMP).bytes_per_s.mean < 0.8 * rate


def test_nobody_sends() -> None:
    """A report of nothing."""
    nobody = np.zeros(0, dtype=np.int64)
    for spread in Spread:
        report = traffic_report(fabric(), Traffic(nobody, nobody), spread=spread, num_bytes=5)
        assert (report.num_flows, report.total_bytes_per_s, report.hot, report.arrive_ns) == (
            0,
            0.0,
            (),
            None,
        )


def test_the_verb_leaves_out_what_stays_in_a_domain() -> None:
    """Flows inside a rack go over NVLink; the document is plain JSON."""
    outcome = exactmap.traffic("gb300-nvl72", gpus=GPUS, pattern="all_to_all", senders=144)
    assert outcome.num_inside == 2 * 72 * 71
    assert outcome.report.num_flows == 2 * 72 * 72
    document = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert (document["schema_version"], document["kind"]) == (1, "traffic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "storm"}, "pattern: no such pattern: got 'storm', expected permutation or incast or"),
        ({"spread": "flood"}, "spread: no such spread: got 'flood', expected ecmp or spray"),
        ({"senders": 2000}, "senders: so many GPUs cannot take part: got 2000, expected 1 to 1152"),
        ({"pattern": "ring", "senders": 100}, "a ring over scale-up domains needs two of them: got 100 GPUs"),
        ({"lost": ["leaf 3 > spine 99"]}, "lost: there is no such link: got 'leaf 3 > spine 99'"),
        ({"slow": ["leaf 3 > spine 1"]}, "slow: a slow link needs the part of its rate that is left"),
        ({"slow": ["leaf 3 > spine 1=nan"]}, "slow: a slow link needs the part of its rate that is left"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    """With what was given and what would have been right."""
    with pytest.raises(InvalidInputError) as error:
        exactmap.traffic("gb300-nvl72", gpus=GPUS, **options)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_too_many_flows_are_refused() -> None:
    """All-to-all among 10,000 GPUs is 100 million flows."""
    with pytest.raises(InvalidInputError, match="too many flows"):
        exactmap.traffic("gb300-nvl72", gpus=10_008, pattern="all_to_all")
