"""The event engine with shared links: times found by hand, and nothing changed where nothing is shared."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random

import numpy as np
import pytest
from hand_plans import make_plan, profile, times
from link_cases import GIGA, LeafSpine, small_cluster
from random_plans import random_durations, random_plan

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover
from exactmap.sim.engine.deadlock import DeadlockError
from exactmap.sim.engine.durations import Durations, resolve, split_replica
from exactmap.sim.engine.events import SharedStep, simulate_events, simulate_shared
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.shared_links import share_links
from exactmap.sim.plan.plan import Bucket, Channel, Group, MeshDims, Plan
from exactmap.topology.fabric.fabric import Spread

HUNDRED = {name: ChannelNs(100) for name in "fg"}
TWO_PAIRS = (Channel("f", 0, 2, "F", 1, 100), Channel("g", 1, 3, "F", 1, 100))
MEETING = {"a": (0, 2), "b": (0, 1), "c": (3, 1), "d": (2, 3)}
PAIR_PROGRAMS = (
    "SF 0.0@f; WS 0.0@f",
    "F 1.0; SF 1.0@g; WS 1.0@g",
    "RF 2.0@f h0; WR 2.0@f",
    "RF 3.0@g h0; WR 3.0@g",
)


def run(plan: Plan, durations: Durations, fabric: LeafSpine, **options: object) -> SharedStep:
    cluster = small_cluster(fabric.num_gpus)
    links = share_links(plan, durations, cluster, fabric=fabric, **options)  # type: ignore[arg-type]
    return simulate_shared(plan, durations, links)


def delays(step: SharedStep) -> dict[str, int]:
    return {delay.name: delay.delay_ns for delay in step.use.delays}


# Two channels over one uplink.


@pytest.mark.parametrize("mover", list(Mover))
def test_two_messages_share_an_uplink(mover: Mover) -> None:
    """The first runs alone for 50 ns; then both have half: its other 50 take 100, g's last 50 are alone."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(
        plan, profile(mover, channel=HUNDRED, work_ns={(op, s): 50 for op in "FIW" for s in range(4)})
    )

    step = run(plan, durations, LeafSpine(4, per_leaf=2))

    assert times(step.trace, 0, "SF 0.0@f")[3] == 150
    assert times(step.trace, 1, "SF 1.0@g")[1:] == (50, 50, 200)
    assert times(step.trace, 2, "RF 2.0@f h0")[3] == 150
    assert (step.use.step_time_ns, step.use.unshared_step_time_ns) == (200, 150)
    assert delays(step) == {"f": 50, "g": 50}
    assert not step.use.uneven


def test_an_end_between_two_nanoseconds_is_rounded_up() -> None:
    """An uplink of 2/3, then of 0.7: what is over a third of a nanosecond later is seen at the next."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(
        plan, profile(channel=HUNDRED, work_ns={(op, s): 50 for op in "FIW" for s in range(4)})
    )

    step = run(plan, durations, LeafSpine(4, per_leaf=2, uplink=GIGA * 2 / 3))

    # f: 50 ns at 2/3 = 33.3 of 100, then 66.7 at 1/3 = 200; g: 66.7 by 250, then 33.3 at 2/3 = 50.
    assert times(step.trace, 0, "SF 0.0@f")[3] == 250
    assert times(step.trace, 1, "SF 1.0@g")[3] == 300
    odd = run(plan, durations, LeafSpine(4, per_leaf=2, uplink=GIGA * 0.7))
    # f: 35 of 100, then 65 at 0.35 = 185.714..; g then 65 of 100 and 35 at 0.7 from 236 on (so not quite).
    assert times(odd.trace, 0, "SF 0.0@f")[3] == 236


@pytest.mark.parametrize(("mover", "sent"), [(Mover.ENGINE, 200), (Mover.INLINE, 207)])
def test_a_message_on_its_way_only_delays(mover: Mover, sent: int) -> None:
    """The wire is shared, latency and the copy out of a receive buffer are not; inline there is no copy."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    channel = {"f": ChannelNs(100, 7, 3), "g": ChannelNs(100, 7, 3)}
    durations = resolve(
        plan, profile(mover, channel=channel, work_ns={(op, s): 0 for op in "FIW" for s in range(4)})
    )

    step = run(plan, durations, LeafSpine(4, per_leaf=2))

    assert times(step.trace, 0, "SF 0.0@f")[3] == sent
    assert times(step.trace, 2, "RF 2.0@f h0")[3] == (210 if mover is Mover.ENGINE else 207)


def test_what_starts_in_one_nanosecond_is_seen_together() -> None:
    """At 100 rank 0 sends b; c follows from a and from d, which takes no time: both share from 100 on."""
    plan = make_plan(
        "SF 0.0@a; WS 0.0@a; SF 0.0@b; WS 0.0@b",
        "RF 1.0@b h0; RF 1.0@c h1; WR 1.0@b; WR 1.0@c",
        "RF 2.0@a h0; WR 2.0@a; SF 2.0@d; WS 2.0@d",
        "RF 3.0@d h0; WR 3.0@d; SF 3.0@c; WS 3.0@c",
        channels=tuple(Channel(name, *ends, "F", 1, 100) for name, ends in MEETING.items()),
    )
    channel = {name: ChannelNs(0 if name == "d" else 100) for name in MEETING}
    durations = resolve(plan, profile(channel=channel))

    step = run(plan, durations, LeafSpine(4, per_leaf=4))

    assert step.use.step_time_ns == 300
    assert step.use.num_sharings == 2, "a, then b and c: never one of these alone"


def test_links_carry_payload() -> None:
    """Of interfaces of which 0.8 is payload, uplinks of the same rate have 0.8 left for messages too."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(
        plan, profile(channel=HUNDRED, work_ns={(op, s): 1000 for op in "FIW" for s in range(4)})
    )
    cluster = small_cluster(4)
    cluster = replace(cluster, scale_out=replace(cluster.scale_out, efficiency=0.8))

    links = share_links(plan, durations, cluster, fabric=LeafSpine(4, per_leaf=2))

    assert times(simulate_shared(plan, durations, links).trace, 0, "SF 0.0@f")[3] == 125


def test_what_is_slow_by_itself_gives_way() -> None:
    """A message that alone takes ten times its bytes wants a tenth of the link; the other has the rest."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    channel = {"f": ChannelNs(1000), "g": ChannelNs(100)}
    durations = resolve(
        plan, profile(channel=channel, work_ns={(op, s): 0 for op in "FIW" for s in range(4)})
    )

    step = run(plan, durations, LeafSpine(4, per_leaf=2))

    assert times(step.trace, 0, "SF 0.0@f")[3] == 1000
    assert times(step.trace, 1, "SF 1.0@g")[3] == 112  # 100 / 0.9 = 111.1


def test_more_than_one_spine() -> None:
    """Sprayed over two spines two messages fit; by hash they share one if their draws agree."""
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(
        plan, profile(channel=HUNDRED, work_ns={(op, s): 0 for op in "FIW" for s in range(4)})
    )
    fabric = LeafSpine(4, per_leaf=2, num_spines=2)
    ends = {
        seed: run(plan, durations, fabric, spread=Spread.ECMP, seed=seed).use.step_time_ns
        for seed in range(8)
    }

    assert run(plan, durations, fabric, spread=Spread.SPRAY).use.step_time_ns == 100
    assert set(ends.values()) == {100, 200}
    assert all(
        run(plan, durations, fabric, spread=Spread.ECMP, seed=seed).use.step_time_ns == end
        for seed, end in ends.items()
    )


# Gradients and messages on one interface.


def dp_plan(
    op: str = "AR",
    order: tuple[str, ...] = ("tp", "cp", "ep", "dp", "pp"),
    dp: int = 2,
    slot: str = "",
) -> Plan:
    """Two stages; the first posts a reduction of a bucket over dp, and sends a message beside it."""
    plan = make_plan(
        f"{op} 0/0@g{slot}; SF 0.0@f; WS 0.0@f; WC 0/0@g",
        "RF 1.0@f h0; WR 1.0@f",
        channels=(Channel("f", 0, 1, "F", 1, 100),),
        groups=(Group("g", ("dp",), (), ""),),
        mesh=MeshDims(1, 1, 1, 2, dp, order),
    )
    return replace(plan, buckets=(Bucket(0, 0, ("layers",), 25),))


@pytest.mark.parametrize(
    ("op_ns", "message_end", "reduction_end"),
    [
        # A member sends 2 x 25 x 4 bytes / 2 = 100 bytes. At 1 byte/ns both want all of it.
        (100, 200, 200),
        # At half a byte/ns the reduction keeps what it wants.
        (200, 200, 200),
        # At 0.8 both have a half: the message 200, the reduction then 125 - 200 * 0.625 = 0.
        (125, 200, 200),
        # At 0.25 the message has three quarters.
        (400, 134, 400),
    ],
)
def test_a_reduction_and_a_message_share_an_interface(
    op_ns: int, message_end: int, reduction_end: int
) -> None:
    plan = dp_plan()
    durations = resolve(plan, profile(channel=HUNDRED, group_ns={("g", "AR", None, None): op_ns}))

    step = run(plan, durations, LeafSpine(4, per_leaf=4))

    assert times(step.trace, 0, "SF 0.0@f")[3] == message_end
    assert times(step.trace, 0, "AR 0/0@g")[3] == reduction_end
    assert delays(step) == {"f": message_end - 100, "g": reduction_end - op_ns}
    (interfaces,) = step.use.tiers
    # Out of both first stages 200 bytes, into each of the four GPUs 100.
    assert (interfaces.tier, interfaces.num_links, interfaces.carried_bytes) == (0, 6, 800)
    assert interfaces.max_use == 200 / step.use.step_time_ns
    assert step.use.hot[0].name == "gpu 0 out"
    assert step.use.hot[0].num_links == 2


@pytest.mark.parametrize(("precision", "end"), [("f32", 150), ("bf16", 125)])
def test_a_gather_moves_parameters(precision: str, end: int) -> None:
    """Half of what a sum moves, in 2 bytes a quarter; the message has the rest, from 100 on all."""
    plan = dp_plan("AG", slot=" p0")
    plan = replace(plan, precision=replace(plan.precision, param=precision))
    durations = resolve(plan, profile(channel=HUNDRED, group_ns={("g", "AG", None, None): 100}))

    step = run(plan, durations, LeafSpine(4, per_leaf=4))

    assert times(step.trace, 0, "AG 0/0@g p0")[3] == 100
    assert times(step.trace, 0, "SF 0.0@f")[3] == end


def test_a_scatter_moves_half_of_a_sum() -> None:
    """A reduce-scatter passes its buffer once: 50 bytes in 100 ns leave the message its half."""
    plan = dp_plan("RS")
    durations = resolve(plan, profile(channel=HUNDRED, group_ns={("g", "RS", None, None): 100}))

    step = run(plan, durations, LeafSpine(4, per_leaf=4))

    # The message has done 50 by 100, and the rest alone.
    assert times(step.trace, 0, "RS 0/0@g")[3] == 100
    assert times(step.trace, 0, "SF 0.0@f")[3] == 150


@pytest.mark.parametrize(("order", "end"), [("dp", 100), ("pp", 350)])
def test_a_tapered_tier_slows_a_ring_that_crosses_it(order: str, end: int) -> None:
    """Four GPUs of a leaf have an uplink of 4/7.

    With dp innermost rings stay inside a leaf; with pp innermost rings of both stages cross, two flows share
    4/7, and a ring goes at the pace of its slowest.
    """
    axes = ("tp", "cp", "ep", *(("dp", "pp") if order == "dp" else ("pp", "dp")))
    plan = dp_plan(order=axes, dp=4)
    plan = replace(
        make_plan("AR 0/0@g; WC 0/0@g", "AR 1/0@g; WC 1/0@g", groups=plan.groups, mesh=plan.mesh),
        buckets=tuple(Bucket(stage, 0, ("layers",), 25) for stage in range(2)),
    )
    # 2 x 25 x 4 x 3/4 = 150 bytes in 150 ns.
    durations = resolve(plan, profile(group_ns={("g", "AR", None, None): 150}))
    end = end * 3 // 2

    step = run(plan, durations, LeafSpine(8, per_leaf=4, uplink=4 * GIGA / 7))

    assert step.use.step_time_ns == end
    assert not step.use.uneven
    assert ("leaf" in "".join(hot.name for hot in step.use.hot)) == (order == "pp")


def test_members_of_a_domain_share_what_it_sends() -> None:
    """Groups of four in two domains of two: each member sends half of what a domain must, inside none."""
    plan = make_plan(
        "AR 0/0@g; WC 0/0@g", groups=(Group("g", ("dp",), (), ""),), mesh=MeshDims(1, 1, 1, 1, 4)
    )
    plan = replace(plan, buckets=(Bucket(0, 0, ("layers",), 25),))
    durations = resolve(plan, profile(group_ns={("g", "AR", None, None): 100}))
    cluster = small_cluster(4, domain_size=2)

    links = share_links(plan, durations, cluster, fabric=LeafSpine(4, per_leaf=4))
    alone = share_links(plan, durations, small_cluster(4, domain_size=4), fabric=LeafSpine(4, per_leaf=4))

    flows = links.loads.flows
    assert list(zip(flows.source.tolist(), flows.sink.tolist(), strict=True)) == [
        (0, 2), (1, 3), (2, 0), (3, 1)
    ]  # fmt: skip
    assert flows.factor.tolist() == [0.25] * 4
    assert simulate_shared(plan, durations, links).use.tiers[0].max_use == 50 / 100
    assert not alone.streams


def test_rings_go_from_domain_to_domain() -> None:
    """Five members in domains of two, two and one: each domain sends 2/3 per pass, whoever is in it."""
    plan = make_plan(
        "AR 0/0@g; WC 0/0@g", groups=(Group("g", ("dp",), (), ""),), mesh=MeshDims(1, 1, 1, 1, 5)
    )
    plan = replace(plan, buckets=(Bucket(0, 0, ("layers",), 25),))
    durations = resolve(plan, profile(group_ns={("g", "AR", None, None): 100}))

    flows = share_links(plan, durations, small_cluster(6, 2), fabric=LeafSpine(6, per_leaf=6)).loads.flows

    assert list(zip(flows.source.tolist(), flows.sink.tolist(), strict=True)) == [
        (0, 2), (1, 3), (2, 4), (3, 4), (4, 0)
    ]  # fmt: skip
    assert np.allclose(flows.factor, [1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3])


# Lanes that are uneven.


def test_a_lane_waits_for_its_slowest_replica() -> None:
    """One of two replicas has its stages on one leaf: the other's message crosses a thin uplink, for both."""
    plan = make_plan(
        "SF 0.0@f; WS 0.0@f",
        "RF 1.0@f h0; WR 1.0@f",
        channels=(Channel("f", 0, 1, "F", 1, 100),),
        mesh=MeshDims(1, 1, 1, 2, 2),
    )
    durations = resolve(plan, profile(channel=HUNDRED))
    fabric = LeafSpine(6, per_leaf=3, uplink=GIGA / 2)
    gpus = np.array([0, 2, 1, 3])  # ranks (pp, dp): (0,0) (0,1) | (1,0) (1,1)

    together = run(plan, durations, fabric, gpu_of_rank=gpus)
    apart = split_replica(durations, 1)
    split = run(plan, apart, fabric, gpu_of_rank=gpus)

    assert times(together.trace, 0, "SF 0.0@f")[3] == 200
    assert together.use.uneven == ("f",)
    assert [times(split.trace, 0, "SF 0.0@f", dp=dp)[3] for dp in range(2)] == [100, 200]
    assert not split.use.uneven


# Nothing shared, nothing changed.


def check_unshared(seed: int) -> bool:
    """On links without end the times are those of both engines without links."""
    rng = Random(seed)
    plan = random_plan(rng)
    durations = random_durations(rng, plan)
    mesh = plan.mesh
    fabric = LeafSpine(mesh.tp * mesh.pp * mesh.dp, per_leaf=2, num_spines=2, interface=inf, uplink=inf)
    links = share_links(
        plan, durations, small_cluster(fabric.num_gpus), fabric=fabric, aggregate=rng.random() < 0.5
    )
    try:
        expected = replay(plan, durations)
    except DeadlockError as error:
        with pytest.raises(DeadlockError, match=str(error)[:20]):
            simulate_events(plan, durations, links=links)
        return False
    step = simulate_shared(plan, durations, links)

    assert step.trace.same_times(expected), seed
    assert step.trace.same_times(simulate_events(plan, durations)), seed
    assert not any(delays(step).values())
    return bool(links.streams)


def test_links_without_end_change_nothing_on_random_plans() -> None:
    assert sum(check_unshared(seed) for seed in range(100)) > 30


def check_only_delays(seed: int) -> tuple[bool, bool]:
    """On scarce links nothing ends earlier; flow by flow the times are those by classes."""
    rng = Random(seed)
    plan = random_plan(rng)
    durations = random_durations(rng, plan)
    mesh = plan.mesh
    fabric = LeafSpine(
        mesh.tp * mesh.pp * mesh.dp,
        per_leaf=rng.choice([1, 2, 3]),
        interface=GIGA / rng.choice([1, 50]),
        uplink=GIGA / rng.choice([1, 10, 300]),
    )
    cluster = small_cluster(fabric.num_gpus)
    try:
        expected = replay(plan, durations)
    except DeadlockError:
        return False, False
    by_class, by_flow = (
        simulate_shared(
            plan,
            durations,
            share_links(plan, durations, cluster, fabric=fabric, aggregate=aggregate),
        )
        for aggregate in (True, False)
    )

    assert by_class.trace.same_times(by_flow.trace), seed
    assert (by_class.trace.done_ns >= expected.done_ns).all(), seed
    assert all(delay >= 0 for delay in delays(by_class).values())
    return True, by_class.use.step_time_ns > by_class.use.unshared_step_time_ns


def test_scarce_links_only_delay_on_random_plans() -> None:
    done = [check_only_delays(seed) for seed in range(100)]

    assert sum(runs for runs, _ in done) > 40
    assert sum(slower for _, slower in done) > 10


# What is refused.


def test_other_durations_are_refused() -> None:
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(plan, profile(channel=HUNDRED))
    links = share_links(plan, durations, small_cluster(4), fabric=LeafSpine(4, per_leaf=2))

    with pytest.raises(InvalidInputError, match="other durations"):
        simulate_events(plan, resolve(plan, profile(channel=HUNDRED)), links=links)


@pytest.mark.parametrize(
    ("gpus", "text"),
    [([0, 1, 2], "one GPU per rank"), ([0, 1, 2, 2], "two ranks"), ([0, 1, 2, 9], "no such GPU")],
)
def test_bad_maps_are_refused(gpus: list[int], text: str) -> None:
    plan = make_plan(*PAIR_PROGRAMS, channels=TWO_PAIRS)
    durations = resolve(plan, profile(channel=HUNDRED))

    with pytest.raises(InvalidInputError, match=text):
        share_links(
            plan,
            durations,
            small_cluster(4),
            fabric=LeafSpine(4, per_leaf=2),
            gpu_of_rank=np.array(gpus),
        )
