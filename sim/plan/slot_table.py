"""Which slots of a rank live: named where they come to life, checked against the bytes of all other pools."""

from __future__ import annotations

from collections.abc import Mapping

from exactmap.sim.plan.plan import Pool

__all__ = ["SlotTable"]


class SlotTable:
    """Living slots of one rank; host slots (pool `o`) share bytes with nothing."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = pools
        self.living: dict[str, dict[int, int]] = {letter: {} for letter in pools}
        """Pool letter -> slot -> line where it was named."""
        self.overlapping = {letter: self._overlaps(pool) for letter, pool in pools.items()}

    def _overlaps(self, pool: Pool) -> tuple[Pool, ...]:
        end = pool.at + pool.num * pool.bytes
        return tuple(
            other
            for other in self.pools.values()
            if other is not pool
            and pool.letter != "o" != other.letter
            and max(pool.at, other.at) < min(end, other.at + other.num * other.bytes)
        )

    def name(self, letter: str, index: int, line: int) -> str | None:
        """Bring a slot to life; returns what is wrong, or None."""
        living = self.living[letter]
        if index in living:
            return f"slot {letter}{index} still lives: it was named at line {living[index]}"
        for other in self.overlapping[letter]:
            clash = self._clash(self.pools[letter], index, other)
            if clash is not None:
                return (
                    f"slot {letter}{index} shares bytes with {other.letter}{clash}, which still lives: "
                    f"it was named at line {self.living[other.letter][clash]}"
                )
        living[index] = line
        return None

    def _clash(self, pool: Pool, index: int, other: Pool) -> int | None:
        """Lowest living slot of `other` that shares a byte with the slot."""
        living = self.living[other.letter]
        start = pool.at + index * pool.bytes
        end = start + pool.bytes
        if not living or start == end:
            return None
        first = max(0, (start - other.at) // other.bytes)
        stop = min(other.num, -(-(end - other.at) // other.bytes))
        if stop - first <= len(living):
            return next((slot for slot in range(first, stop) if slot in living), None)
        return min((slot for slot in living if first <= slot < stop), default=None)

    def end(self, letter: str, index: int) -> None:
        """End a slot's life; index -1 stands for none."""
        if index >= 0:
            del self.living[letter][index]

    def first_living(self) -> tuple[str, int, int] | None:
        """Some slot that lives: pool letter, index, line; None if there is none."""
        for letter, living in self.living.items():
            for index, line in living.items():
                return letter, index, line
        return None
