"""What is asked of a cluster's state: how much its components differ, and which ones are slow."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.state.components import ComponentKind

__all__ = ["HOMOGENEOUS", "SlowUplink", "StateSpec", "Straggler"]

_MAX_VARIATION = 1.0
_MIN_RATE = 0.001
_MAX_RATE = 4.0


@dataclass(frozen=True, slots=True)
class Straggler:
    """Components that are slower than they would be.

    Parameters
    ----------
    kind
        Kind of the components.
    ids
        Their numbers, as ranges (first, last), both included.
    rate
        How fast, in parts of the rate that they would have; of a leaf: of its uplinks.
    lost_uplinks
        Leaf: uplinks that are down.

    Raises
    ------
    InvalidInputError
        If the rate is out of range, a range is empty, or another component than a leaf loses uplinks.
    """

    kind: ComponentKind
    ids: tuple[tuple[int, int], ...]
    rate: float = 1.0
    lost_uplinks: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not _MIN_RATE <= self.rate <= _MAX_RATE:
            raise InvalidInputError(
                "a rate is out of range",
                where=Place(field="rate"),
                got=f"{self.rate:g}",
                expected=f"{_MIN_RATE:g} to {_MAX_RATE:g} times the usual one",
                hint="a component that does not work at all is left out of the map, not slow",
            )
        if self.lost_uplinks < 0 or (self.lost_uplinks and self.kind is not ComponentKind.LEAF):
            raise InvalidInputError(
                "only a leaf loses uplinks",
                where=Place(field="lost_uplinks"),
                got=f"{self.lost_uplinks} of a {self.kind}",
            )
        for first, last in self.ids:
            if not 0 <= first <= last:
                raise InvalidInputError(
                    "a range of numbers is empty", where=Place(field=self.kind.value), got=f"{first}..{last}"
                )


@dataclass(frozen=True, slots=True)
class SlowUplink:
    """Single uplinks of leaves that are slow or lost, by the names that the fabric's links have.

    Parameters
    ----------
    names
        ``leaf 5 > spine 2``, with plane and cable behind it if only one is meant.
    rate
        How fast each is, in parts of its rate; 0: lost.

    Raises
    ------
    InvalidInputError
        If the rate is out of range.
    """

    names: tuple[str, ...]
    rate: float

    def __post_init__(self) -> None:
        """Check the rate."""
        if self.rate and not _MIN_RATE <= self.rate <= _MAX_RATE:
            raise InvalidInputError(
                "a rate is out of range",
                where=Place(field="rate"),
                got=f"{self.rate:g}",
                expected=f"{_MIN_RATE:g} to {_MAX_RATE:g} times the usual one",
                hint="an uplink that does not work at all is lost: true",
            )


@dataclass(frozen=True, slots=True)
class StateSpec:
    """How much components differ. Variations are coefficients of variation; 0 switches a part off.

    Parameters
    ----------
    seed
        Of all streams.
    gpu_spread
        Between the rates of GPUs, for good.
    gpu_step_jitter
        Of a GPU's rate between steps.
    gpu_jitter
        Of the duration of one pass.
    slow_host_share, slow_host_rate
        Hosts that are slow, and how fast these are.
    interface_spread, interface_jitter
        Between the rates of interfaces, and of one message or one part in a group operation.
    hiccups_per_gpu_hour, hiccup_ns
        How often a GPU stands still, and for how long.
    stragglers
        Components that are slow by name.

    Raises
    ------
    InvalidInputError
        If a number is out of range.
    """

    seed: int = 1
    gpu_spread: float = 0.0
    gpu_step_jitter: float = 0.0
    gpu_jitter: float = 0.0
    slow_host_share: float = 0.0
    slow_host_rate: float = 1.0
    interface_spread: float = 0.0
    interface_jitter: float = 0.0
    hiccups_per_gpu_hour: float = 0.0
    hiccup_ns: int = 0
    stragglers: tuple[Straggler | SlowUplink, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check the ranges."""
        for entry in fields(self):
            if entry.name.endswith(("spread", "jitter", "share")):
                value = float(getattr(self, entry.name))
                if not 0.0 <= value <= _MAX_VARIATION:
                    raise InvalidInputError(
                        "out of range",
                        where=Place(field=f"state.{entry.name}"),
                        got=f"{value:g}",
                        expected="0 to 1",
                    )
        for name, least, value in (
            ("seed", 0, self.seed),
            ("hiccups_per_gpu_hour", 0, self.hiccups_per_gpu_hour),
            ("hiccup_ns", 0, self.hiccup_ns),
            ("slow_host_rate", _MIN_RATE, self.slow_host_rate),
        ):
            if value < least:
                raise InvalidInputError(
                    "out of range",
                    where=Place(field=f"state.{name}"),
                    got=f"{value:g}",
                    expected=f"at least {least:g}",
                )

    @property
    def has_jitter(self) -> bool:
        """Whether anything changes from work to work, message to message or step to step."""
        jitter = self.gpu_step_jitter or self.gpu_jitter or self.interface_jitter
        return bool(jitter or (self.hiccups_per_gpu_hour and self.hiccup_ns))


HOMOGENEOUS = StateSpec()
"""All components alike, and always the same."""
