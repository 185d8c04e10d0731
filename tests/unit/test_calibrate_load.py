"""How much of the cores others take: from the accounts of the system."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from exactmap.sim.verbs import host_load
from exactmap.sim.verbs.host_load import LoadMeter, busy_s

STAT = (
    "cpu  100 0 0 0 0 0 0 0 0 0\n"
    "cpu0 30 10 60 500 40 5 5 90 7 3\n"
    "cpu1 100 0 0 900 0 0 0 0 0 0\n"
    "cpu12 400 0 0 0 0 0 0 0 0 0\n"
    "intr 5 0 cpu1\n"
)


def test_idle_waiting_and_guests_are_not_busy() -> None:
    """Guest time is in user time already (proc(5)); only cores that this process may use count."""
    assert busy_s(STAT, {0}, 100) == 2.0
    assert busy_s(STAT, {0, 1}, 100) == 3.0
    assert busy_s(STAT, {2}, 100) == 0


@pytest.mark.parametrize(("others_s", "share"), [(0.0, 0.0), (0.02, 0.0), (1.02, 0.25), (9.0, 1.0)])
def test_what_is_not_our_own_is_theirs(
    monkeypatch: pytest.MonkeyPatch, others_s: float, share: float
) -> None:
    """Two seconds of two cores, three of them our own work; a tick of each core is rounding."""
    readings = iter([(10.0, 100.0, 7.0), (12.0, 100.0 + 3.0 + others_s, 7.0 + 3.0)])
    monkeypatch.setattr(os, "sched_getaffinity", Mock(return_value={0, 1}))
    monkeypatch.setattr(host_load, "_TICKS_PER_S", 100)
    monkeypatch.setattr(LoadMeter, "_read", Mock(side_effect=readings))

    assert LoadMeter().others_share() == pytest.approx(share)


@pytest.mark.parametrize(("shares", "looks"), [([0.9, 0.2, 0.01, 0.9], 3), ([0.04], 1)])
def test_waiting_ends_when_others_leave(
    monkeypatch: pytest.MonkeyPatch, shares: list[float], looks: int
) -> None:
    """It looks until a look finds the cores left alone."""
    look = Mock(side_effect=shares)
    monkeypatch.setattr(LoadMeter, "others_share", look)

    last = host_load.wait_until_quiet(60.0, look_s=0.0)

    assert last == shares[looks - 1]
    assert look.call_count == looks


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that others never leave is used as it is."""
    monkeypatch.setattr(LoadMeter, "others_share", Mock(return_value=0.5))

    assert host_load.wait_until_quiet(0.0, look_s=0.0) == 0.5


def test_without_accounts_nobody_disturbs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another system has no /proc/stat."""
    monkeypatch.setattr(host_load, "_STAT", tmp_path / "nothing")

    assert LoadMeter().others_share() == 0
