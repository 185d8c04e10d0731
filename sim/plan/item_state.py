"""The life of one item on one rank: inputs, forward, backward, outputs, stash, exchanges between its parts.

Rulings 18 and 19 of `docs/reference/plan-format.md`, section 10. Methods return what is wrong, or None.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from exactmap.sim.plan.instruction import Op

__all__ = ["Away", "Input", "ItemState"]


class Input:
    """States of an input slot (constants: compared in the innermost loop)."""

    NONE = 0
    POSTED = 1
    READY = 2


class Away:
    """Where the stash is: on the rank, leaving, on the host, coming back, back again."""

    HERE = 0
    LEAVING = 1
    HOST = 2
    COMING = 3
    BACK = 4


@dataclass(slots=True)
class ItemState:
    """Parts done of each pass, slots by role (-1: none), and what is on its way."""

    num_parts: int
    x: int = Input.NONE
    dy: int = Input.NONE
    forward: int = 0
    again: int = 0
    input_gradient: int = 0
    weight_gradient: int = 0
    fused: int = 0
    forward_named_stash: bool = False
    y_moved: bool = False
    dx_moved: bool = False
    away: int = Away.HERE
    x_slot: int = -1
    dy_slot: int = -1
    y_slot: int = -1
    dx_slot: int = -1
    a_slot: int = -1
    w_slot: int = -1
    g_slot: int = -1
    o_slot: int = -1
    exchanges: dict[str, int] = field(default_factory=dict)
    """Pass -> exchanges posted and not yet waited."""

    @property
    def made(self) -> bool:
        """Whether the output y is there."""
        return self.forward == self.num_parts

    @property
    def backward_made(self) -> bool:
        """Whether the input gradient dx is there."""
        return self.num_parts in {self.input_gradient, self.fused}

    @property
    def complete(self) -> bool:
        """Whether the item has had its whole backward pass, or has not begun."""
        whole = self.num_parts
        return not self.forward or self.fused == whole or self.input_gradient == self.weight_gradient == whole

    def steps_done(self, op: Op) -> int:
        """Parts of a pass that ran."""
        match op:
            case Op.F:
                return self.forward
            case Op.RC:
                return self.again
            case Op.I:
                return self.input_gradient
            case Op.W:
                return self.weight_gradient
            case _:
                return self.fused

    def advance(self, op: Op) -> None:
        """Count one more part of a pass."""
        match op:
            case Op.F:
                self.forward += 1
            case Op.RC:
                self.again += 1
            case Op.I:
                self.input_gradient += 1
            case Op.W:
                self.weight_gradient += 1
            case _:
                self.fused += 1

    def order_fault(self, op: Op, step: int, previous: ItemState | None, *, sliced: bool) -> str | None:
        """What is wrong with the place of part `step` (in the order of its pass) of a pass.

        `previous` is the item of the slice that must come before: s-1 for F, s+1 for I and B.
        """
        if op is Op.F:
            if sliced and (previous is None or not previous.made):
                return "slices of F must ascend: the slice before is not done"
        elif not self.made:
            return f"{op} before the item's F"
        elif op is Op.RC:
            if self.forward_named_stash:
                return "RC of an item whose F kept its stash"
        elif op is Op.W:
            if self.input_gradient <= step:
                return "W before its I"
        else:
            if not self.forward_named_stash and self.again < self.num_parts:
                return f"{op} before the item's RC: its F named no stash"
            if (self.input_gradient or self.weight_gradient) if op is Op.B else self.fused:
                return "both B and I of one item"
            if sliced and (previous is None or not previous.backward_made):
                return f"slices of {op} must descend: the slice after is not done"
        if step > self.steps_done(op):
            return "parts out of order"
        return None

    def data_fault(self, op: Op) -> str | None:
        """Whether what a pass reads is there."""
        if op is Op.W:
            return None
        if self.exchanges and (wrong := self._exchange_fault("F" if op is Op.RC else op.value)):
            return wrong
        if op in {Op.F, Op.RC}:
            return None if self.x == Input.READY else _missing("x", self.x)
        if self.dy != Input.READY:
            return _missing("dy", self.dy)
        if self.away not in {Away.HERE, Away.BACK}:
            return "the stash is on the host or on its way: OFF, then WOFF, LD and WLD must come before"
        return None

    def _exchange_fault(self, phase: str) -> str | None:
        for other in {"F", phase}:
            if self.exchanges.get(other):
                return f"an exchange (A2A or KV) of pass {other} of the item is not waited"
        return None

    def output_fault(self, *, forward: bool) -> str | None:
        """Whether the output (y, or dx) may be moved now."""
        if not (self.made if forward else self.backward_made):
            return "the data is not made yet: its last part has not run"
        if self.y_moved if forward else self.dx_moved:
            return "the data was moved before"
        return None

    def output_data_fault(self, *, forward: bool) -> str | None:
        """Whether an exchange still works on the output."""
        if not self.exchanges:
            return None
        phases = ("F",) if forward else ("I", "B")
        for phase in phases:
            if self.exchanges.get(phase):
                return f"an exchange (A2A or KV) of pass {phase} of the item is not waited"
        return None

    def offload_fault(self) -> str | None:
        """Whether the stash may go to the host now."""
        whole = self.made if self.forward_named_stash else self.made and self.again == self.num_parts
        if not whole or self.input_gradient or self.fused:
            return "OFF needs a whole stash: after the item's F (or RC), before its I or B"
        return "the stash was sent to the host before" if self.away != Away.HERE else None


def _missing(name: str, state: int) -> str:
    if state == Input.POSTED:
        return f"{name} is not there yet: the WR of its receive must come before"
    return f"{name} is not there: no receive, LF or LB brings it"
