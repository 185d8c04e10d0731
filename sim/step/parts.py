"""Groups of the parts of a step: compute by operator, exposed communication, bubble, optimizer, host."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["PartGroup", "group_of", "grouped_ns"]


class PartGroup(StrEnum):
    """What a part of a step is."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"
    BUBBLE = "bubble"
    OPTIMIZER = "optimizer"
    HOST = "host"


_AXES = frozenset({"tp", "cp", "ep", "etp", "dp", "pp", "embedding"})
_NAMED = {
    "bubble": PartGroup.BUBBLE,
    "slowest rank": PartGroup.BUBBLE,
    "optimizer": PartGroup.OPTIMIZER,
    "host": PartGroup.HOST,
    "step overhead": PartGroup.HOST,
    "overlap slowdown": PartGroup.COMMUNICATION,
}


def group_of(part: str) -> PartGroup:
    """Group of a part by its name: an axis and its network, a name from here, or an operator.

    Examples
    --------
    >>> group_of("tp scale_up").value, group_of("qkv").value, group_of("bubble").value
    ('communication', 'compute', 'bubble')
    """
    if part in _NAMED:
        return _NAMED[part]
    return PartGroup.COMMUNICATION if part.split(" ", maxsplit=1)[0] in _AXES else PartGroup.COMPUTE


def grouped_ns(parts_ns: Mapping[str, float]) -> dict[PartGroup, float]:
    """Time of each group; they sum to what the parts do."""
    out = dict.fromkeys(PartGroup, 0.0)
    for name, time in parts_ns.items():
        out[group_of(name)] += time
    return out
