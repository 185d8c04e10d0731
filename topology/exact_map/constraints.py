"""Whether a map keeps what it was asked to keep; the first group that does not is named, with its GPUs."""

from __future__ import annotations

import numpy as np

from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.pieces import group_ranks
from exactmap.topology.exact_map.ranges import show_numbers
from exactmap.topology.exact_map.request import Constraint, Rule
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["Breach", "find_breach"]


class Breach:
    """A constraint that is broken: by which ranks, and in words.

    Parameters
    ----------
    constraint
        The constraint.
    ranks
        Ranks of the first group that breaks it.
    text
        The group, its GPUs and racks.
    """

    def __init__(self, constraint: Constraint, ranks: Ints, text: str) -> None:
        self.constraint = constraint
        self.ranks = ranks
        self.text = text


def find_breach(exact_map: ExactMap, constraint: Constraint) -> Breach | None:
    """The first group that breaks a constraint, or None.

    Parameters
    ----------
    exact_map
        The map.
    constraint
        What it must keep.
    """
    match constraint.rule:
        case Rule.WITHIN_RACK:
            return _split(exact_map, constraint, exact_map.machine.domain_size, "rack")
        case Rule.WITHIN_HOST:
            return _split(exact_map, constraint, exact_map.machine.gpus_per_host, "host")
        case Rule.WHOLE_RACKS:
            return _shared_rack(exact_map, constraint)
        case Rule.ALONG_RAILS:
            return _off_rail(exact_map, constraint)


def _split(exact_map: ExactMap, constraint: Constraint, size: int, word: str) -> Breach | None:
    ranks = group_ranks(exact_map.mesh, constraint.axes)
    places = exact_map.gpu[ranks] // size
    split = np.any(places != places[:, :1], axis=1)
    if not split.any():
        return None
    first = int(np.argmax(split))
    parts = [
        f"{_gpus(exact_map.gpu[ranks[first]][places[first] == place])} in {word} {place}"
        for place in dict.fromkeys(places[first].tolist())
    ]
    num_more = len(parts) - 3
    more = f" and {num_more} more {word}{'s' * (num_more > 1)}" if num_more > 0 else ""
    text = f"{_group(exact_map.mesh, ranks[first], constraint.axes)}: {'; '.join(parts[:3])}{more}"
    return Breach(constraint, ranks[first], text)


def _shared_rack(exact_map: ExactMap, constraint: Constraint) -> Breach | None:
    ranks = np.arange(exact_map.mesh.num_ranks, dtype=np.int64)
    stages = ranks // exact_map.mesh.stride(Axis.PP) % exact_map.mesh.pp
    racks = exact_map.machine.rack(exact_map.gpu)
    least = np.full(exact_map.machine.num_racks, exact_map.mesh.pp, dtype=np.int64)
    most = np.full(exact_map.machine.num_racks, -1, dtype=np.int64)
    np.minimum.at(least, racks, stages)
    np.maximum.at(most, racks, stages)
    shared = least < most
    if not shared.any():
        return None
    rack = int(np.argmax(shared))
    here = ranks[racks == rack]
    parts = [
        f"{_gpus(exact_map.gpu[here[stages[here] == stage]])} for pp {stage}"
        for stage in np.unique(stages[here])[:2].tolist()
    ]
    return Breach(constraint, here, f"rack {rack} serves more than one stage: {'; '.join(parts)}")


def _off_rail(exact_map: ExactMap, constraint: Constraint) -> Breach | None:
    machine = exact_map.machine
    ranks = group_ranks(exact_map.mesh, constraint.axes)
    laid = exact_map.groups(constraint.axes)
    partner = np.take_along_axis(laid.gpu, laid.pieces.counterparts(), axis=1)
    # Hops inside a rack use NVLink; where a group has one rack all its hops do.
    off = (machine.rail(laid.gpu) != machine.rail(partner)) & (
        machine.rack(laid.gpu) != machine.rack(partner)
    )
    if not off.any():
        return None
    first = int(np.argmax(off.any(axis=1)))
    at = int(np.argmax(off[first]))
    ends = np.array([laid.gpu[first, at], partner[first, at]])
    words = " to ".join(
        f"GPU {gpu} (rack {rack}, rail {rail})"
        for gpu, rack, rail in zip(
            ends.tolist(), machine.rack(ends).tolist(), machine.rail(ends).tolist(), strict=True
        )
    )
    return Breach(
        constraint, ranks[first], f"{_group(exact_map.mesh, ranks[first], constraint.axes)}: from {words}"
    )


def _gpus(gpus: Ints) -> str:
    return f"GPU{'s' * (len(gpus) > 1)} {show_numbers(np.sort(gpus))}"


def _group(mesh: Mesh, ranks: Ints, axes: tuple[Axis, ...]) -> str:
    """The group in words: its axes, and where it is on the others."""
    coords = mesh.coords(int(ranks[0]))
    others = [f"{axis} {coords.on(axis)}" for axis in mesh.order if axis not in axes and mesh.size(axis) > 1]
    at = f" at {', '.join(others)}" if others else ""
    return f"the {','.join(axes)} group{at}"
