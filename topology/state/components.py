"""What a cluster is made of, piece by piece: names of components, and who contains whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Component", "ComponentKind"]


class ComponentKind(StrEnum):
    """Kinds of components that have a state of their own."""

    GPU = "gpu"
    HOST = "host"
    RACK = "rack"
    """A scale-up domain."""
    INTERFACE = "interface"
    """Network interface of a GPU; it has the GPU's number."""
    LEAF = "leaf"
    """Leaf switch with its uplinks."""


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """One component by kind and number.

    Examples
    --------
    >>> str(Component(ComponentKind.INTERFACE, 40)), str(Component(ComponentKind.RACK, 3))
    ('interface of gpu 40', 'rack 3')
    """

    kind: ComponentKind
    number: int

    def __str__(self) -> str:
        """As people say it."""
        of = " of gpu" if self.kind is ComponentKind.INTERFACE else ""
        return f"{self.kind.value}{of} {self.number}"
