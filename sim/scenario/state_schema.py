"""What a scenario may say of the state of its cluster's components."""

from __future__ import annotations

import re
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.fields import Ns, checked

__all__ = ["StateSection", "StragglerSection"]

_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def _ids(value: object) -> tuple[tuple[int, int], ...]:
    """Numbers and ranges ``first..last``, one or a list of them."""
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    ranges: list[tuple[int, int]] = []
    for entry in entries:
        found = _RANGE.fullmatch(entry) if isinstance(entry, str) else None
        if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0:
            ranges.append((entry, entry))
        elif found and int(found[1]) <= int(found[2]):
            ranges.append((int(found[1]), int(found[2])))
        else:
            raise InvalidInputError(
                "not the number of a component",
                got=repr(entry)[:80],
                expected="a number, a range such as 100..107, or a list of these",
            )
    if not ranges:
        raise InvalidInputError("no component is named", got="an empty list")
    return tuple(ranges)


_ONE: dict[str, object] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+\\.\\.[0-9]+$"}]
}
Ids = Annotated[
    tuple[tuple[int, int], ...],
    BeforeValidator(checked(_ids)),
    WithJsonSchema(
        {"anyOf": [*cast(list[object], _ONE["anyOf"]), {"type": "array", "items": _ONE, "minItems": 1}]}
    ),
]


def _names(value: object) -> tuple[str, ...]:
    """One name or a list of them."""
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    names = tuple(entry for entry in entries if isinstance(entry, str) and entry.strip())
    if not names or len(names) < len(entries):
        raise InvalidInputError(
            "not the name of an uplink",
            got=repr(value)[:80],
            expected="a name such as 'leaf 5 > spine 2', or a list of these",
        )
    return names


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(checked(_names)),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
Variation = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=4.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class GpuStateSection(_Section):
    """How much GPUs differ; coefficients of variation."""

    spread: Variation | None = Field(default=None, description="between GPUs, for good")
    step_jitter: Variation | None = Field(default=None, description="of a GPU's rate between steps")
    jitter: Variation | None = Field(default=None, description="of the duration of one pass")


class SlowHostsSection(_Section):
    """Hosts that are slow, drawn at random."""

    share: Variation | None = None
    rate: Rate | None = None


class InterfaceStateSection(_Section):
    """How much network interfaces differ; coefficients of variation."""

    spread: Variation | None = Field(default=None, description="between interfaces, for good")
    jitter: Variation | None = Field(default=None, description="of one message or part in a collective")


class HiccupsSection(_Section):
    """GPUs that stand still now and then."""

    per_gpu_hour: Annotated[float, Field(ge=0.0)] | None = None
    duration: Ns | None = None


class StragglerSection(_Section):
    """Components that are slower than they would be: one kind, by number."""

    gpu: Ids | None = None
    host: Ids | None = None
    rack: Ids | None = None
    interface: Ids | None = Field(default=None, description="network interface of the GPU with this number")
    leaf: Ids | None = None
    uplink: Names | None = Field(default=None, description="single uplinks: leaf 5 > spine 2")
    rate: Rate | None = Field(default=None, description="in parts of the usual rate")
    uplink_rate: Rate | None = Field(default=None, description="leaf: of its uplinks")
    lost_uplinks: Annotated[int, Field(ge=1)] | None = Field(default=None, description="leaf: uplinks down")
    lost: Literal[True] | None = Field(default=None, description="uplink: it is down")


class StateSection(_Section):
    """State of every component: what is left out keeps the values that come with exactmap, or none."""

    use: Literal["defaults", "none"] = Field(
        default="defaults", description="values of what is left out; none: all components are alike"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    gpu: GpuStateSection = GpuStateSection()
    slow_hosts: SlowHostsSection = SlowHostsSection()
    interface: InterfaceStateSection = InterfaceStateSection()
    hiccups: HiccupsSection = HiccupsSection()
    stragglers: list[StragglerSection] = []
