"""How busy others keep the cores that this process may use, from the system's own accounts.

The share is (time that the cores were busy - time that this process and its ended children took) / (time x
cores), by ``/proc/stat`` and ``getrusage``. The first of these counts in ticks (10 ms as a rule), so up to
one tick of each core is taken for rounding. Where there are no such accounts the share is 0.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

__all__ = ["QUIET_SHARE", "LoadMeter", "busy_s", "wait_until_quiet"]

# Above this others take a twentieth of the machine: a core of two is then delayed by up to a tenth.
QUIET_SHARE = 0.05

_STAT = Path("/proc/stat")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class LoadMeter:
    """Measures from its making on, or from the last `restart`."""

    def __init__(self) -> None:
        self._cores = os.sched_getaffinity(0)
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self._start = self._read()

    def others_share(self) -> float:
        """Share of the cores that other processes took, 0 to 1."""
        now_s, busy, own = (after - before for after, before in zip(self._read(), self._start, strict=True))
        others_s = busy - own - len(self._cores) / _TICKS_PER_S
        return min(1.0, max(0.0, others_s) / (now_s * len(self._cores))) if now_s > 0 else 0.0

    def _read(self) -> tuple[float, float, float]:
        """Clock, busy time of the cores, and time of this process and its children, in s."""
        try:
            text = _STAT.read_text(encoding="ascii", errors="replace")
        except OSError:
            return time.perf_counter(), 0.0, 0.0
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(one.ru_utime + one.ru_stime for one in used)
        return time.perf_counter(), busy_s(text, self._cores, _TICKS_PER_S), own


def wait_until_quiet(limit_s: float, look_s: float = 0.5) -> float:
    """Sleep until others leave the cores alone for `look_s`, at most `limit_s`; their last share."""
    meter = LoadMeter()
    end_s = time.perf_counter() + limit_s
    while True:
        meter.restart()
        time.sleep(look_s)
        share = meter.others_share()
        if share <= QUIET_SHARE or time.perf_counter() >= end_s:
            return share


def busy_s(stat: str, cores: set[int], ticks_per_s: int) -> float:
    r"""Time that the named cores were not idle, in s, by the text of ``/proc/stat``.

    Examples
    --------
    >>> busy_s("cpu 9 9 9 9 9\ncpu0 30 10 60 500 40 5 5 90 0 0\ncpu1 7 0 0 0 0 0 0 0 0 0\n", {0}, 100)
    2.0
    """
    ticks = 0
    for line in stat.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / ticks_per_s
