"""What fabrics of regular shapes share: a shape with its sizes, and links numbered by it."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.links import LinkTable

__all__ = ["RegularFabric"]


class _Shape(Protocol):
    @property
    def num_gpus(self) -> int: ...


_ShapeT = TypeVar("_ShapeT", bound=_Shape)
_LinksT = TypeVar("_LinksT", bound=LinkTable)


class RegularFabric(Generic[_ShapeT, _LinksT]):
    """A built fabric of a regular shape.

    Parameters
    ----------
    spec
        What was asked for.
    shape
        Sizes of one plane.
    links
        Links of all planes.
    port_bytes_per_s
        Rate of a port: an interface's rate divided by the planes.
    """

    def __init__(self, spec: FabricSpec, shape: _ShapeT, links: _LinksT, port_bytes_per_s: float) -> None:
        self._spec = spec
        self.shape = shape
        self._links = links
        self.port_bytes_per_s = port_bytes_per_s

    @property
    def spec(self) -> FabricSpec:
        """What was asked for."""
        return self._spec

    @property
    def num_gpus(self) -> int:
        """GPUs attached."""
        return self.shape.num_gpus

    @property
    def links(self) -> _LinksT:
        """Its links, those of all planes."""
        return self._links
