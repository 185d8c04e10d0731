"""A program that grows block by block and is sorted once, at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from exactmap.sim.plan.table import POOL_LETTERS, InstructionTable
from exactmap.sim.schedules.units import Ints

__all__ = ["Draft"]


@dataclass(frozen=True, slots=True)
class _Block:
    """Some instructions: where they stand, and those of their columns that say anything."""

    keys: Ints
    columns: Mapping[str, ArrayLike]
    slots: Mapping[str, Ints]


class Draft:
    """Blocks of instructions with their keys; equal keys stand in the order in which they were added."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def add(
        self,
        keys: Ints,
        op: ArrayLike,
        columns: Mapping[str, ArrayLike] = MappingProxyType({}),
        slots: Mapping[str, Ints] = MappingProxyType({}),
    ) -> None:
        """Add instructions.

        Parameters
        ----------
        keys
            Where they stand.
        op
            Kind codes, one for each or one for all.
        columns
            Columns of `InstructionTable` that say anything, or one value for all.
        slots
            Pool letter -> the slots that they name.
        """
        if len(keys):
            self._blocks.append(_Block(keys, {"op": op, **columns}, slots))

    def table(self, queues: tuple[str, ...], members: InstructionTable | None) -> InstructionTable:
        """All instructions in the order of their keys; `members`: those of the braids."""
        keys = np.concatenate([block.keys for block in self._blocks])
        place = np.empty(len(keys), dtype=np.int64)
        place[np.argsort(keys, kind="stable")] = np.arange(len(keys))
        table = InstructionTable.empty(len(keys), queues=queues)
        end = 0
        for block in self._blocks:
            begin, end = end, end + len(block.keys)
            rows = place[begin:end]
            for name, values in block.columns.items():
                getattr(table, name)[rows] = values
            for letter, slots in block.slots.items():
                table.slots[rows, POOL_LETTERS.index(letter)] = slots
        return replace(table, members=members)
