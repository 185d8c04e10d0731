"""Single uplinks of leaves: by the names of the fabric's links, worth what the flow model says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.document import Problems, validate
from exactmap.sim.scenario.state_schema import StateSection
from exactmap.sim.scenario.state_section import effective_state, resolve_state, state_of_overrides
from exactmap.sim.scenario.strict_yaml import Marked
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.flows.health import Health, find_links, rates_out_of_leaf
from exactmap.topology.hardware import Cluster
from exactmap.topology.state.cluster_state import ClusterState, build_state
from exactmap.topology.state.components import ComponentKind
from exactmap.topology.state.factors import ONE
from exactmap.topology.state.leaves import leaves_of
from exactmap.topology.state.spec import SlowUplink, StateSpec, Straggler


def racks(num_gpus: int = 4608, planes: int = 1) -> Cluster:
    cluster = load_cluster("gb300-nvl72")
    return replace(cluster, num_gpus=num_gpus, fabric=replace(cluster.fabric, planes=planes))


def built(cluster: Cluster, *stragglers: SlowUplink | Straggler) -> ClusterState:
    return build_state(cluster, StateSpec(stragglers=stragglers), leaves_of(cluster))


@pytest.mark.parametrize("num_gpus", [4608, 4608 + 40], ids=["full", "a-leaf-with-10-gpus"])
def test_slow_and_lost_uplinks_leave_what_the_flow_model_says(num_gpus: int) -> None:
    """All GPUs of a leaf send upwards: the rate of each, by the links of the fabric, leaf by leaf."""
    cluster = racks(num_gpus)
    fabric = build_fabric(cluster)
    assert isinstance(fabric, FatTree)
    last = leaves_of(cluster).num_leaves - 1
    names = {f"leaf 5 > spine {spine}": 0.0 for spine in range(6)} | {"leaf 3 > spine 7": 0.25}
    names |= {f"leaf {last} > spine {spine}": 0.0 for spine in range(9)}
    state = built(cluster, *(SlowUplink((name,), rate) for name, rate in names.items()))
    links = find_links(fabric.links, names)
    # Both directions of a cable: twice as many links as cables.
    factor = np.concatenate(
        [np.full(len(one), rate) for one, rate in zip(links, names.values(), strict=True)]
    )
    rates = rates_out_of_leaf(fabric.links, Health(np.concatenate(links), factor))
    gpus = np.arange(num_gpus)

    slower = cluster.scale_out.bytes_per_s / rates
    assert np.allclose(state.uplink_factor(gpus, 1.0) / ONE, np.maximum(1.0, slower), atol=1e-6)
    assert {round(float(one), 3) for one in slower} > {1.0}


def test_uplinks_of_a_leaf_add_up_and_a_name_said_twice_counts_once() -> None:
    cluster = racks()
    size = int(leaves_of(cluster).num_uplinks[5])
    one = built(cluster, SlowUplink(("leaf 5 > spine 2", "leaf 5 > spine 2"), 0.0)).uplinks_left
    cables = round((1 - one[5]) * size)
    two = built(cluster, SlowUplink(("leaf 5 > spine 2",), 0.0), SlowUplink(("leaf 5 > spine 4",), 0.5))
    lost = built(cluster, Straggler(ComponentKind.LEAF, ((5, 5),), lost_uplinks=cables))

    assert cables >= 1
    assert one.tolist() == lost.uplinks_left.tolist()
    assert two.uplinks_left[5] == pytest.approx(1 - 1.5 * cables / size)
    assert (np.delete(two.uplinks_left, 5) == 1.0).all()


def test_the_worst_plane_decides() -> None:
    """Four planes: one cable in one plane counts as much as the same cable in all of them."""
    cluster = racks(planes=4)
    names = leaves_of(cluster).uplink_names(5)
    size = len(names) // 4
    one = built(cluster, SlowUplink((names[size + 3],), 0.0)).uplinks_left[5]
    all_planes = built(cluster, SlowUplink(tuple(names[3::size]), 0.0)).uplinks_left[5]

    assert " plane 1" in names[size + 3]
    assert one == all_planes == 1 - 1 / size


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (
            "leaf 5 > spine 99",
            r"no such uplink: .*leaf 5 > spine 99', expected one of .*\n?.*did you mean",
        ),
        (
            "leaf 500 > spine 1",
            r"no such uplink: .*leaf 500 > spine 1', expected a name such as 'leaf 0 > ",
        ),
        ("spine 1 > leaf 5", r"no such uplink"),
        ("leaf 5", r"no such uplink"),
        ("leaf 5 > spine 1 plane 7", r"no such uplink"),
    ],
)
def test_unknown_uplinks_are_refused_with_a_name_that_there_is(name: str, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        built(racks(), SlowUplink((name,), 0.5))


def test_a_leaf_without_uplinks_is_refused() -> None:
    """All cables of a leaf, and a fabric that has none."""
    cluster = racks()
    every = tuple(leaves_of(cluster).uplink_names(5))
    with pytest.raises(InvalidInputError, match=r"cut off, not slow.*got all \d+ of leaf 5"):
        built(cluster, SlowUplink(every, 0.0))
    with pytest.raises(InvalidInputError, match="leaves of this fabric have no uplinks"):
        built(racks(72), SlowUplink(("leaf 0 > spine 0",), 0.0))


def test_a_state_with_uplinks_reads_back() -> None:
    cluster = racks()
    said = (
        "[{uplink: leaf 5 > spine 2, lost: true}, {uplink: [leaf 1 > spine 0, leaf 1 > spine 1], rate: 0.5}]"
    )
    spec = state_of_overrides([f"state.stragglers={said}"], cluster)
    assert spec.stragglers == (
        SlowUplink(("leaf 5 > spine 2",), 0.0),
        SlowUplink(("leaf 1 > spine 0", "leaf 1 > spine 1"), 0.5),
    )
    problems = Problems()
    document = Marked({"state": effective_state(spec)}, {})
    section = validate(Marked(effective_state(spec), {}), StateSection, problems)
    assert section is not None
    assert resolve_state(section, cluster, document, problems) == spec
    assert not problems.found


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("{uplink: leaf 5 > spine 2}", "it is not said how slow the component is: expected rate or lost"),
        ("{uplink: leaf 5 > spine 2, lost: true, rate: 0.5}", "an uplink is slow or lost"),
        ("{uplink: leaf 5 > spine 2, uplink_rate: 0.5}", "an uplink has no such number: got uplink_rate"),
        ("{uplink: 5, lost: true}", "not the name of an uplink: got 5"),
        ("{uplink: leaf 5 > spine 2, lost: false}", "lost: wrong value"),
        ("{uplink: leaf 5 > spine 2, rate: 0.0001}", "a rate is out of range"),
        ("{gpu: 5, lost: true}", "a gpu has no such number: got lost, expected rate"),
    ],
)
def test_mistakes_about_uplinks_are_named(said: str, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        state_of_overrides([f"state.stragglers=[{said}]"], racks())
