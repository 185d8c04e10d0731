"""Whether two ways to number ranks by their mesh coordinates are the same."""

from __future__ import annotations

from collections.abc import Sequence

from exactmap.sim.plan.plan import MeshDims

__all__ = ["same_numbering"]


def same_numbering(mesh: MeshDims, order: Sequence[str]) -> bool:
    """Whether a mesh's own order numbers ranks as `order` would, both fastest axis first.

    Axes of one member number nothing.

    Examples
    --------
    >>> mesh = MeshDims(tp=8, cp=1, ep=1, pp=4, dp=1, order=("tp", "cp", "ep", "dp", "pp"))
    >>> same_numbering(mesh, ("tp", "pp", "cp", "ep", "dp"))
    True
    >>> same_numbering(mesh, ("pp", "tp", "cp", "ep", "dp"))
    False
    """
    return [axis for axis in mesh.order if getattr(mesh, axis) > 1] == [
        axis for axis in order if getattr(mesh, axis) > 1
    ]
