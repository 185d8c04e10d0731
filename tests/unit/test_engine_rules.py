"""The model of time, rule by rule: both engines give the numbers that one finds by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hand_plans import make_plan, profile, times

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.deadlock import DeadlockError
from exactmap.sim.engine.durations import Durations, resolve, split_inner
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.perturb import slow_down
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.trace import Trace
from exactmap.sim.plan.plan import (
    Channel,
    Group,
    MeshDims,
    Plan,
)
from exactmap.sim.plan.reader import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    Engine = Callable[[Plan, Durations], Trace]

WORKED_EXAMPLE = Path(__file__).parent.parent / "golden" / "plans" / "valid" / "worked-example.plan"
both_engines = pytest.mark.parametrize("engine", [replay, simulate_events], ids=["replay", "events"])


# The worked example.


def worked_example(mover: Mover, depth: int) -> tuple[Plan, Durations]:
    plan = read_plan(WORKED_EXAMPLE.read_bytes())
    plan = replace(plan, channels=tuple(replace(channel, depth=depth) for channel in plan.channels))
    work_ns = {("F", 0): 2000, ("I", 0): 1000, ("W", 0): 1000}
    work_ns |= {(op, 1): ns for (op, _), ns in work_ns.items()}
    opt_ns = {("OPT", stage, 0): 1000 for stage in (0, 1)}
    hop = {name: ChannelNs(0, 500) for name in "fb"}
    return plan, resolve(plan, Profile(mover, work_ns, opt_ns, hop))


@both_engines
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_worked_example_mover_engine(engine: Engine, depth: int) -> None:
    """The table of the plan format's section 9; a hop that is pure latency makes depth of no effect."""
    trace = engine(*worked_example(Mover.ENGINE, depth))

    expected = {
        0: "F 0.0 h0 a0 w0:0:2000 F 0.1 h1 a1 w1:2000:4000 WR 0.0@b:4000:7000 B 0.0:7000:9000 "
        "WR 0.1@b:9000:11000 B 0.1:11000:13000 OPT 0/0:13000:14000",
        1: "WR 1.0@f:0:2500 F 1.0 a0 w0:2500:4500 B 1.0 h2:4500:6500 F 1.1 a0 w0:6500:8500 "
        "B 1.1 h2:8500:10500 OPT 1/0:10500:11500",
    }
    for pp, text in expected.items():
        rank = trace.actor(pp)
        rows = [
            f"{op}:{a}:{e}"
            for op, a, e in zip(rank.op, rank.a_ns.tolist(), rank.e_ns.tolist(), strict=True)
            if e > a
        ]
        assert " ".join(rows) == text
    transfers = [times(trace, 1, text) for text in ("RF 1.0@f h0", "RF 1.1@f h1")]
    transfers += [times(trace, 0, text) for text in ("RB 0.0@b h2", "RB 0.1@b h0")]
    assert [(s, done) for _, s, _, done in transfers] == [
        (2000, 2500),
        (4000, 4500),
        (6500, 7000),
        (10500, 11000),
    ]
    summary = trace.summary()
    assert (summary.makespan_ns, summary.period_ns) == (14000, 13000)
    assert summary.steady_bubble == 1 - 8 / 13
    assert summary.bubble == 1 - 8 / 14


@both_engines
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_worked_example_mover_inline(engine: Engine, depth: int) -> None:
    """Inline the second gradient leaves only when rank 0 stands in its wait: half a microsecond later."""
    trace = engine(*worked_example(Mover.INLINE, depth))

    assert trace.summary().makespan_ns == 14500
    # P_send 4000, a(WR 1.1) 6500: the hop is inside the wait.
    assert times(trace, 1, "WR 1.1@f") == (6500, -1, 7000, -1)
    assert times(trace, 0, "SF 0.1@f") == (4000, 6500, 4000, 7000)


# Rule 4 and 5: posts, waits, channels.


@both_engines
def test_posts_cost_comp_and_a_transfer_starts_after_both_posts(engine: Engine) -> None:
    plan = make_plan(
        "F 0.0; SF 0.0@f; WS 0.0@f", "F 1.1; RF 1.0@f h0; WR 1.0@f", channels=(Channel("f", 0, 1, "F", 0, 8),)
    )

    trace = engine(plan, resolve(plan, profile(post_ns={"SF": 7, "RF": 30})))

    assert times(trace, 0, "SF 0.0@f") == (100, 130, 107, 140)
    assert times(trace, 1, "RF 1.0@f h0") == (100, 130, 130, 145)
    assert times(trace, 0, "WS 0.0@f") == (107, -1, 140, -1)
    assert times(trace, 1, "WR 1.0@f") == (130, -1, 145, -1)


@both_engines
def test_a_wire_carries_one_message_after_another(engine: Engine) -> None:
    """Latency delays a message, not the one behind it."""
    plan = make_plan(
        "SF 0.0@f; SF 0.1@f; SF 0.2@f; WS 0.0@f; WS 0.1@f; WS 0.2@f",
        "RF 1.0@f h0; RF 1.1@f h1; RF 1.2@f h2; WR 1.0@f; WR 1.1@f; WR 1.2@f",
        channels=(Channel("f", 0, 1, "F", 0, 8),),
    )

    trace = engine(plan, resolve(plan, profile(channel={"f": ChannelNs(10, 500, 3)})))

    assert [times(trace, 1, f"RF 1.{n}@f h{n}")[1::2] for n in range(3)] == [(0, 510), (10, 520), (20, 530)]


@both_engines
def test_two_buffers_let_a_sender_run_ahead_by_two(engine: Engine) -> None:
    """k=2: the third transfer starts when the first has left its buffer: receive posted, copied."""
    plan = make_plan(
        "SF 0.0@f; SF 0.1@f; SF 0.2@f; WS 0.0@f; WS 0.1@f; WS 0.2@f",
        "F 1.3; RF 1.0@f h0; WR 1.0@f; RF 1.1@f h1; WR 1.1@f; RF 1.2@f h2; WR 1.2@f",
        channels=(Channel("f", 0, 1, "F", 2, 8),),
    )

    trace = engine(plan, resolve(plan, profile()))

    assert times(trace, 1, "RF 1.0@f h0")[1::2] == (0, 103)  # in its buffer at 15, posted at 100, copied in 3
    assert times(trace, 1, "RF 1.1@f h1")[1::2] == (10, 106)
    assert times(trace, 1, "RF 1.2@f h2")[1::2] == (103, 121)  # 103 + wire 10 + latency 5 + copy 3
    assert times(trace, 0, "WS 0.1@f") == (10, -1, 20, -1)
    assert times(trace, 0, "WS 0.2@f") == (20, -1, 113, -1)


# Rule 6: groups and copies.


@both_engines
def test_a_group_operation_starts_with_its_last_member_and_takes_the_longest_duration(engine: Engine) -> None:
    plan = make_plan("F 0.0; AR 0/0@g; WC 0/0@g", "AR 1/0@g; WC 1/0@g", groups=(Group("g", ("pp",)),))

    trace = engine(plan, resolve(plan, profile(group_ns={("g", "AR", 0, 0): 11, ("g", "AR", 1, 0): 25})))

    assert times(trace, 1, "AR 1/0@g") == (0, 100, 0, 125)
    assert times(trace, 0, "WC 0/0@g") == (100, -1, 125, -1)


@both_engines
def test_a_bucket_is_reduced_over_one_group_after_another(engine: Engine) -> None:
    """Posted together, the second on a bucket starts after the first; another bucket does not wait."""
    plan = make_plan(
        "AR 0/0@g; AR 0/0@x; AR 0/1@y; WC 0/0@g; WC 0/0@x; WC 0/1@y",
        groups=(Group("g", ("dp",)), Group("x", ("dp",)), Group("y", ("dp",))),
    )

    trace = engine(plan, resolve(plan, profile()))

    assert times(trace, 0, "AR 0/0@x")[1::2] == (40, 80)
    assert times(trace, 0, "AR 0/1@y")[1::2] == (0, 40)


@both_engines
@pytest.mark.parametrize(("scan", "expected"), [("up", [40, 140, 180]), ("down", [180, 140, 40])])
def test_a_scan_goes_from_member_to_member(engine: Engine, scan: str, expected: list[int]) -> None:
    """Up from rank 0, down from the last; rank 1 comes 100 late."""
    plan = make_plan(
        "NORM @n; WC @n", "F 1.0; NORM @n; WC @n", "NORM @n; WC @n", groups=(Group("n", ("pp",), (), scan),)
    )

    trace = engine(plan, resolve(plan, profile()))

    assert [times(trace, pp, "NORM @n")[3] for pp in range(3)] == expected


@both_engines
def test_off_and_ld_share_one_copy_queue(engine: Engine) -> None:
    plan = make_plan("OFF 0.0 o0; LD 0.1 a0 w0; F 0.2; WOFF 0.0; WLD 0.1")

    trace = engine(plan, resolve(plan, profile()))

    assert times(trace, 0, "LD 0.1 a0 w0")[1::2] == (60, 120)
    assert times(trace, 0, "WLD 0.1") == (100, -1, 120, -1)


@both_engines
def test_a_channel_and_a_group_may_have_one_name(engine: Engine) -> None:
    """They have name spaces of their own: the message takes 10 + 5, the operation 40, side by side."""
    plan = make_plan(
        "SF 0.0@x; AR 0/0@x; WS 0.0@x; WC 0/0@x",
        "RF 1.0@x h0; AR 1/0@x; WR 1.0@x; WC 1/0@x",
        channels=(Channel("x", 0, 1, "F", 0, 8),),
        groups=(Group("x", ("pp",)),),
    )

    trace = engine(plan, resolve(plan, profile()))

    assert times(trace, 1, "WR 1.0@x") == (0, -1, 15, -1)
    assert times(trace, 1, "WC 1/0@x") == (15, -1, 40, -1)


@both_engines
def test_a_braid_takes_its_own_duration_where_the_profile_has_one(engine: Engine) -> None:
    """Else the sum of its members, 100 + 100."""
    plan = make_plan("FB{F 0.0|B 0.1}; FB{B 0.2|F 0.3}")

    trace = engine(plan, resolve(plan, profile(braid_ns={(("F", 0), ("B", 0)): 130})))

    assert times(trace, 0, "FB{F 0.0|B 0.1}") == (0, 0, 130, -1)
    assert times(trace, 0, "FB{B 0.2|F 0.3}") == (130, 130, 330, -1)


@both_engines
def test_replica_classes_meet_in_a_group_over_dp(engine: Engine) -> None:
    """Replica 1 does its work in another order and is late; both classes see the same end."""
    plan = make_plan(
        "AR 0/0@g; F 0.0; WC 0/0@g",
        groups=(Group("g", ("dp",)),),
        mesh=MeshDims(1, 1, 1, 1, 4),
        own=(0, 1, "F 0.0; AR 0/0@g; WC 0/0@g"),
    )

    trace = engine(plan, resolve(plan, profile()))

    assert times(trace, 0, "AR 0/0@g", dp=0) == (0, 100, 0, 140)
    assert times(trace, 0, "AR 0/0@g", dp=1) == (100, 100, 100, 140)
    assert trace.replicas == {0: 3, 1: 1}


@both_engines
def test_groups_without_dp_keep_replicas_apart(engine: Engine) -> None:
    plan = make_plan(
        "AR 0/0@g; WC 0/0@g",
        groups=(Group("g", ("tp",)),),
        mesh=MeshDims(1, 1, 1, 1, 2),
        own=(0, 1, "F 0.0; AR 0/0@g; WC 0/0@g"),
    )

    trace = engine(plan, resolve(plan, profile()))

    assert [times(trace, 0, "AR 0/0@g", dp=dp)[3] for dp in (0, 1)] == [40, 140]


# Rule 7: who moves.


@both_engines
def test_inline_moves_in_the_wait(engine: Engine) -> None:
    """A message starts when its receiver is in WR, an operation when all are in WC, a copy in its wait."""
    plan = make_plan(
        "SF 0.0@f; AR 0/0@g; OFF 0.1 o0; F 0.1; WS 0.0@f; WC 0/0@g; WOFF 0.1",
        "RF 1.0@f h0; AR 1/0@g; F 1.1; F 1.2; WR 1.0@f; WC 1/0@g",
        channels=(Channel("f", 0, 1, "F", 3, 8),),
        groups=(Group("g", ("pp",)),),
    )

    trace = engine(plan, resolve(plan, profile(Mover.INLINE)))

    assert times(trace, 0, "SF 0.0@f")[1::2] == (200, 215)
    assert times(trace, 1, "WR 1.0@f") == (200, -1, 215, -1)
    assert times(trace, 0, "WS 0.0@f") == (100, -1, 215, -1)
    assert times(trace, 0, "AR 0/0@g")[1::2] == (215, 255)
    assert times(trace, 0, "OFF 0.1 o0")[1::2] == (255, 315)


# Rules 1 to 3: the line, durations, coupling.


@both_engines
def test_a_host_that_issues_slowly_holds_the_line(engine: Engine) -> None:
    """a(x) = max(e(x-1), host(x)): 150 per instruction bind behind short works, 10 only at the start."""
    plan = make_plan("F 0.0; I 0.0; W 0.0")

    trace = engine(plan, resolve(plan, profile(issue_ns=150)))
    busy = engine(plan, resolve(plan, profile(issue_ns=10)))

    assert [times(trace, 0, text)[:3] for text in ("F 0.0", "I 0.0", "W 0.0", "END")] == [
        (150, 150, 250),
        (300, 300, 350),
        (450, 450, 500),
        (600, -1, 600),
    ]
    assert [times(busy, 0, text)[0] for text in ("F 0.0", "I 0.0", "W 0.0", "END")] == [10, 110, 160, 210]


@both_engines
def test_defaults_of_durations(engine: Engine) -> None:
    """B = I + W, RC = F, a braid the sum of its members; ZERO, PV and UNDO nothing."""
    plan = make_plan("ZERO 0/0; F 0.0; RC 0.0 a0 w0; B 0.0; FB{F 0.1|B 0.2}; PV 0/0; UNDO 0/0; OPT 0/0")

    trace = engine(plan, resolve(plan, profile()))

    assert (trace.e_ns - trace.a_ns).tolist() == [0, 100, 100, 100, 200, 0, 0, 20, 0]


@both_engines
def test_coupled_ranks_start_together_and_take_the_longest(engine: Engine) -> None:
    """Rank 1 on tp is slow in all it does: F and the braid are coupled and wait for it, W is not."""
    plan = make_plan(
        "W 0.3; F 0.0; W 0.4; FB{F 0.1|W 0.2}", mesh=MeshDims(2, 1, 1, 1, 1), couple=(("F", ("tp",)),)
    )
    even = split_inner(resolve(plan, profile()), plan, ("tp",))
    slow = slow_down(even, 2).actors
    durations = replace(even, actors={key: (slow if key[0] else even.actors)[key] for key in slow})

    trace = engine(plan, durations)

    assert [
        times(trace, 0, text, inner=0)[:3] for text in ("W 0.3", "F 0.0", "W 0.4", "FB{F 0.1|W 0.2}")
    ] == [
        (0, 0, 50),
        (50, 100, 300),
        (300, 300, 350),
        (350, 400, 700),
    ]
    assert times(trace, 0, "F 0.0", inner=1)[:3] == (100, 100, 300)
    assert trace.summary().ranks[0].exposed_ns == {"couple": 100}


@both_engines
def test_without_coupling_ranks_of_one_axis_run_apart(engine: Engine) -> None:
    plan = make_plan("F 0.0", mesh=MeshDims(2, 1, 1, 1, 1))
    even = split_inner(resolve(plan, profile()), plan, ("tp",))
    slow = slow_down(even, 2).actors
    durations = replace(even, actors={key: (slow if key[0] else even.actors)[key] for key in slow})

    assert [rank.end_ns for rank in engine(plan, durations).summary().ranks] == [100, 200]


# Deadlocks.


@both_engines
@pytest.mark.parametrize("mover", list(Mover))
def test_ranks_that_wait_for_each_other_are_named(engine: Engine, mover: Mover) -> None:
    """Each rank waits to receive before it sends."""
    plan = make_plan(
        "RB 0.0@b h0; WR 0.0@b; SF 0.0@f; WS 0.0@f",
        "RF 1.0@f h0; WR 1.0@f; SB 1.0@b; WS 1.0@b",
        "F 2.0",
        channels=(Channel("f", 0, 1, "F", 1, 8), Channel("b", 1, 0, "B", 1, 8)),
    )

    with pytest.raises(DeadlockError, match="ranks wait for each other") as caught:
        engine(plan, resolve(plan, profile(mover)))

    assert [str(actor) for actor in caught.value.cycle] == [
        "rank 0 line 0: WR 0.0@b",
        "rank 1 line 0: WR 1.0@f",
    ]
    assert caught.value.exit_code == 3


@both_engines
def test_a_wait_for_oneself_is_a_deadlock_even_if_another_rank_goes_on(engine: Engine) -> None:
    """Inline, a sender waits for a receiver that comes to its WR only after the sender's next message."""
    plan = make_plan(
        "SF 0.0@f; WS 0.0@f; SF 0.0@x; WS 0.0@x",
        "RF 1.0@f h0; RF 1.0@x h1; WR 1.0@x; WR 1.0@f",
        channels=(Channel("f", 0, 1, "F", 0, 8), Channel("x", 0, 1, "F", 0, 8)),
    )

    assert engine(plan, resolve(plan, profile(Mover.ENGINE))).summary().makespan_ns == 25
    with pytest.raises(DeadlockError):
        engine(plan, resolve(plan, profile(Mover.INLINE)))


@both_engines
def test_operations_that_wait_for_each_other_through_buckets_are_a_deadlock(engine: Engine) -> None:
    """Two ranks reduce over two groups in opposite orders; the checks refuse these waits already."""
    plan = make_plan(
        "AR 0/0@x; AR 0/0@y; WC 0/0@x; WC 0/0@y",
        "AR 1/0@y; AR 1/0@x; WC 1/0@x; WC 1/0@y",
        groups=(Group("x", ("pp",)), Group("y", ("pp",))),
    )

    with pytest.raises(DeadlockError) as caught:
        engine(plan, resolve(plan, profile()))

    assert caught.value.cycle == ()


# Plans that no engine can run.


@both_engines
@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("SF 0.0@f; WS 0.0@f", "F 1.0", "a message lacks its partner"),
        ("AR 0/0@g; WC 0/0@g", "F 1.0", "members of a group post different numbers of operations"),
    ],
)
def test_ends_that_do_not_pair_up_are_refused(engine: Engine, first: str, second: str, what: str) -> None:
    plan = make_plan(first, second, channels=(Channel("f", 0, 1, "F", 0, 8),), groups=(Group("g", ("pp",)),))

    with pytest.raises(InvalidInputError, match=what):
        engine(plan, resolve(plan, profile()))


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("SF 0.0@f", "posts and waits of a queue do not pair up"),
        ("WS 0.0@f; SF 0.0@f", "a wait stands before its post"),
        ("SF 0.0@unknown; WS 0.0@unknown", "no such channel or group"),
        ("SF 0.0@g; WS 0.0@g", "no such channel or group"),
        ("AR 0/0@f; WC 0/0@f", "no such channel or group"),
    ],
)
def test_queues_that_do_not_pair_up_are_refused(program: str, what: str) -> None:
    plan = make_plan(program, "", channels=(Channel("f", 0, 1, "F", 0, 8),), groups=(Group("g", ("pp",)),))

    with pytest.raises(InvalidInputError, match=what):
        resolve(plan, profile())
