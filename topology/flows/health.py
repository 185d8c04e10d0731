"""Links that are lost or slow: what of each link's rate is left, and what that leaves each GPU.

When all GPUs of a leaf send upwards and packets are spread over its uplinks, the uplinks act as one link.
Each GPU's rate is its fair share of it, at most that of its own ports::

    together(leaf) = sum over uplinks of rate x health          if spreading minds how fast each is
    together(leaf) = live uplinks x rate of the slowest         if it deals packets out evenly
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.links import Floats, Ints, LinkTable, Routes

__all__ = ["Health", "find_links", "rates_out_of_leaf"]


@dataclass(frozen=True, slots=True, eq=False)
class Health:
    """What is left of the rates of some links.

    Parameters
    ----------
    links
        Which.
    factor
        [len(links)] part of the rate that each still has: 0 if it is lost.

    Raises
    ------
    InvalidInputError
        If a factor is not between 0 and 1.
    """

    links: Ints
    factor: Floats

    def __post_init__(self) -> None:
        """Check the factors."""
        wrong = ~((self.factor >= 0.0) & (self.factor <= 1.0))
        if wrong.any() or len(self.links) != len(self.factor):
            raise InvalidInputError(
                "a link has no such part of its rate",
                got=f"{self.factor[wrong][0]:g}" if wrong.any() else f"{len(self.factor)} factors",
                expected="0 (lost) to 1 (whole)" if wrong.any() else f"{len(self.links)}, one per link",
            )

    @classmethod
    def whole(cls) -> Health:
        """All links as they should be."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0))

    @classmethod
    def lost(cls, links: Ints) -> Health:
        """Some links lost."""
        return cls(links, np.zeros(len(links)))

    def of(self, links: Ints) -> Floats:
        """Factor of each of some links; where one is named twice its least counts."""
        if not len(self.links):
            return np.ones(len(links))
        order = np.lexsort((self.factor, self.links))
        named, factor = self.links[order], self.factor[order]
        place = np.minimum(np.searchsorted(named, links), len(named) - 1)
        return np.where(named[place] == links, factor[place], 1.0)

    def capacity(self, table: LinkTable) -> Floats:
        """[links of the table] what each can carry."""
        rates = table.capacity_bytes_per_s(np.arange(table.num_links))
        np.minimum.at(rates, self.links, rates[self.links] * self.factor)
        return rates


def find_links(table: Wiring, names: Iterable[str]) -> list[Ints]:
    """Links by name, both directions of the cable.

    ``leaf 3 > spine 1`` names all cables between the two, in all planes; add the plane and the cable, as
    reports write them, for one of them.

    Raises
    ------
    InvalidInputError
        If there is no such link.
    """
    names = list(names)
    if not names:
        return []
    every = np.arange(table.num_links)
    tail, head = table.ends(every)
    switches = np.unique(head[head >= table.num_gpus])
    numbers: dict[str, list[int]] = {}
    for node in switches.tolist():
        short = table.switch_name((node - table.num_gpus) % table.plane_switches)
        numbers.setdefault(short, []).append(node)
    found: list[Ints] = []
    for name in names:
        ends = name.split(" > ")
        links = np.zeros(0, dtype=np.int64)
        if len(ends) == 2:
            first = _nodes(ends[0], numbers, table.num_gpus)
            far, _, rest = ends[1].partition(" plane ")
            second = _nodes(far.partition(" cable ")[0], numbers, table.num_gpus)
            links = every[np.isin(tail, first) & np.isin(head, second)]
            if rest or " cable " in far:
                links = np.array(
                    [link for link in links.tolist() if table.name(link) == name], dtype=np.int64
                )
        if not len(links):
            raise InvalidInputError(
                "there is no such link",
                where=Place(field="lost"),
                got=repr(name),
                expected=f"a name such as {table.name(0)!r} or {table.name(table.num_links // 2)!r}",
            )
        # The way back of each: the same ends exchanged, the same place among parallel cables.
        back = every[np.isin(tail, head[links]) & np.isin(head, tail[links])]
        same = np.isin(table.lane(back), table.lane(links)) & np.isin(
            back // table.plane_links, links // table.plane_links
        )
        found.append(np.concatenate((links, back[same])))
    return found


def _nodes(name: str, numbers: dict[str, list[int]], num_gpus: int) -> list[int]:
    kind, _, number = name.partition(" ")
    if kind == "gpu" and number.isdecimal():
        return [int(number)] if int(number) < num_gpus else []
    return numbers.get(name, [])


def rates_out_of_leaf(table: Wiring, health: Health, *, minds_rates: bool = True) -> Floats:
    """Rate at which each GPU can send above its leaves when all do.

    Parameters
    ----------
    table
        Links of the fabric.
    health
        What is left of them.
    minds_rates
        Packets go to each uplink by its rate, as adaptive routing does; if not, evenly over those that live,
        and the slowest of these holds up all.

    Returns
    -------
    Floats
        [gpus] bytes/s over all ports of each; where there is nothing above the leaves, what its ports have.
    """
    every = np.arange(table.num_links)
    rate = health.capacity(table)
    tail, head = table.ends(every)
    # GPUs are the lowest nodes: who is sent to by one is a leaf.
    port = np.flatnonzero(tail < table.num_gpus)
    leaf = head[port]
    up = np.flatnonzero(np.isin(tail, np.unique(leaf)) & (head >= table.num_gpus) & (table.tier(every) > 0))
    out = np.zeros(table.num_gpus)
    if not len(up):
        np.add.at(out, tail[port], rate[port])
        return out
    nodes = table.num_nodes
    together = np.bincount(tail[up], rate[up], nodes)
    if not minds_rates:
        lives = up[rate[up] > 0.0]
        slowest = np.full(nodes, np.inf)
        np.minimum.at(slowest, tail[lives], rate[lives])
        count = np.bincount(tail[lives], minlength=nodes)
        together = np.where(count > 0, count * np.where(count > 0, slowest, 0.0), 0.0)
    routes = Routes(np.arange(len(port) + 1), leaf, np.ones(len(port)))
    np.add.at(out, tail[port], fair_rates(routes, together.astype(np.float64), most=rate[port]))
    return out
