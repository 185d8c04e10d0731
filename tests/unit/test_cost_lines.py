"""A plan carries the profile that it was priced with."""

from __future__ import annotations

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.cost_lines import profile_from_cost_lines, to_cost_lines
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile


def test_a_profile_survives_the_way_into_a_plan_and_back() -> None:
    profile = Profile(
        Mover.INLINE,
        work_ns={("F", 0): 2000, ("I", 0): 1000, ("W", 0): 900, ("RC", 1): 5},
        bucket_ns={("OPT", 0, 1): 7, ("ZERO", 0, 0): 3},
        channel={"f0": ChannelNs(500, 20, 1)},
        group_ns={("dp", "AR", 0, 1): 11, ("norm", "NORM", None, None): 13, ("ep", "A2A_D", 2, None): 17},
        copy_ns={("OFF", 1): 19},
        post_ns={"SF": 2},
        braid_ns={(("F", 3), ("B", 4)): 35, (("F", 3),): 1},
        issue_ns=4,
    )

    assert profile == profile_from_cost_lines(to_cost_lines(profile))


@pytest.mark.parametrize(
    "key",
    ["X.0", "F", "F.0.0", "chan.f.speed", "group.dp", "group.dp.AR.x", "FB", "FB.F", "FB.F.x", "FB.OPT.0"],
)
def test_an_unknown_cost_is_named(key: str) -> None:
    with pytest.raises(InvalidInputError, match="unknown cost") as caught:
        profile_from_cost_lines([(key, 1)], "a.plan")

    assert key in str(caught.value)


def test_a_plan_without_costs_says_so() -> None:
    with pytest.raises(InvalidInputError, match="says nothing about costs"):
        profile_from_cost_lines([], "a.plan")
