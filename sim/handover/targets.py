"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.maxtext import to_maxtext
from exactmap.sim.handover.megatron import to_megatron
from exactmap.sim.handover.mpi import to_mpi
from exactmap.sim.handover.slurm import to_slurm
from exactmap.sim.handover.torchtitan import to_torchtitan

__all__ = ["TARGETS", "Target", "find_targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that a plan is handed over to.

    Parameters
    ----------
    name
        Its name, and its folder's.
    make
        Job -> files and verdict.
    needs_map
        Whether it must know which GPU each rank sits on.
    """

    name: str
    make: Callable[[Job], Handover]
    needs_map: bool = False


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("megatron", to_megatron),
        Target("torchtitan", to_torchtitan),
        Target("maxtext", to_maxtext),
        Target("slurm", to_slurm, needs_map=True),
        Target("mpi", to_mpi, needs_map=True),
    )
}


def find_targets(text: str) -> tuple[Target, ...]:
    """Targets of a list with commas, each once.

    Raises
    ------
    InvalidInputError
        If one is unknown, or none is named.

    Examples
    --------
    >>> [target.name for target in find_targets("slurm,megatron,slurm")]
    ['slurm', 'megatron']
    """
    names = list(dict.fromkeys(name for name in (word.strip() for word in text.split(",")) if name))
    if not names:
        raise InvalidInputError("no target is named", where=Place(field="--to"), expected=", ".join(TARGETS))
    for name in names:
        if name not in TARGETS:
            near = get_close_matches(name.lower(), TARGETS, 1, 0.5)
            raise InvalidInputError(
                "unknown target",
                where=Place(field="--to"),
                got=repr(name),
                expected=", ".join(TARGETS),
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
    return tuple(TARGETS[name] for name in names)
