"""Whether a target numbers ranks as the plan does, and what to say if not."""

from __future__ import annotations

from collections.abc import Sequence

from exactmap.sim.handover.verdict import Ledger
from exactmap.sim.plan.plan import MeshDims

__all__ = ["OTHER_NUMBERING", "same_numbering", "say_numbering"]

OTHER_NUMBERING = "map the plan made with that order, or groups cross other networks than planned"


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


def say_numbering(ledger: Ledger, mesh: MeshDims, order: Sequence[str], things: str) -> None:
    """Enter how a target with one order of its own numbers ranks, fastest axis first; it names no experts."""
    if same_numbering(mesh, order):
        ledger.exact("its order of axes", "mesh.order")
        return
    named = ", ".join(axis for axis in order if axis != "ep")
    ledger.instead(f"{things} are numbered {named}: {OTHER_NUMBERING}", "mesh.order")
