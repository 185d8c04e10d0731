"""What one pipeline rank knows of a plan: its stages, buckets, pools, channel ends and groups.

Also says what is wrong with an instruction's names there (`prog.ref`); rulings 15 and 16 of
`docs/reference/plan-format.md`, section 10.
"""

from __future__ import annotations

from typing import Final

from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.parameters import shares_embedding
from exactmap.sim.plan.plan import Bucket, Plan, Pool

__all__ = ["PlanIndex", "RankView"]

_PASSES: Final = frozenset({Op.F, Op.RC, Op.I, Op.B, Op.W})
_EXCHANGES: Final = frozenset({Op.A2A_D, Op.A2A_C, Op.KV})
_SENDER_SIDE: Final = frozenset({Op.SF, Op.SB, Op.WS})
_MESSAGES: Final = frozenset({Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR})
_CLASS: Final = {Op.SF: "F", Op.RF: "F", Op.SB: "B", Op.RB: "B"}
_BUCKET_OPS: Final = frozenset({Op.ZERO, Op.OPT, Op.PV, Op.UNDO, Op.AG, Op.RS, Op.AR, Op.FREE})
_FREE_CLOCK_OPS: Final = frozenset({Op.PV, Op.UNDO, Op.CHK})
_ITEM_ONLY: Final = frozenset({Op.LF, Op.LB, Op.OFF, Op.LD, Op.WOFF, Op.WLD})


class PlanIndex:
    """Declarations of a plan by the keys under which ranks look for them; made once per plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stages: list[list[int]] = [[] for _ in range(plan.mesh.pp)]
        for stage, ranks in enumerate(plan.place):
            for rank in ranks:
                self.stages[rank].append(stage)
        self.pools: list[dict[str, Pool]] = [{} for _ in range(plan.mesh.pp)]
        for pool in plan.pools:
            self.pools[pool.pp][pool.letter] = pool
        self.buckets: list[list[Bucket]] = [[] for _ in plan.stages]
        for bucket in plan.buckets:
            self.buckets[bucket.stage].append(bucket)
        self.channels = {channel.name: channel for channel in plan.channels}
        self.members = {group.name: frozenset(group.pp) if group.pp else None for group in plan.groups}
        """Group -> its pipeline ranks, None for all."""
        self.shares_embedding = shares_embedding(plan)


class RankView:
    """One pipeline rank's share of the declarations.

    Parameters
    ----------
    index
        Declarations that were found valid.
    rank
        The pipeline rank.
    """

    def __init__(self, index: PlanIndex, rank: int) -> None:
        plan = self.plan = index.plan
        self.index = index
        self.rank = rank
        self.last_stage = len(plan.stages) - 1
        self.here = frozenset(index.stages[rank])
        self.parts = {
            stage: {name: number for number, name in enumerate(plan.stages[stage].parts)}
            for stage in self.here
        }
        self.num_parts = {stage: max(1, len(parts)) for stage, parts in self.parts.items()}
        self.pools = index.pools[rank]
        self.channels = index.channels
        self.buckets: dict[tuple[int, int], Bucket] = {
            (stage, bucket.index): bucket for stage in index.stages[rank] for bucket in index.buckets[stage]
        }
        self.used_buckets = {stage: self._buckets_used_by(stage) for stage in self.here}
        self._slot_faults: dict[tuple[tuple[str, int], ...], str | None] = {}
        self._allowed: dict[tuple[Op, int, bool, int], tuple[tuple[str, ...], ...]] = {}

    def _buckets_used_by(self, stage: int) -> tuple[tuple[int, int], ...]:
        """Buckets that passes of `stage` read and add to; a tied head also uses the one with `wte`."""
        used = [(stage, bucket.index) for bucket in self.index.buckets[stage]]
        if stage == self.last_stage != 0 and self.index.shares_embedding:
            used.extend((0, bucket.index) for bucket in self.index.buckets[0] if "wte" in bucket.holds)
        return tuple(used)

    def part_index(self, instruction: Instruction) -> int:
        """Index of the instruction's part, 0 where the stage has none."""
        return self.parts[instruction.stage][instruction.part] if instruction.part else 0

    def fault(self, instruction: Instruction) -> str | None:
        """What is wrong with the names of an instruction (no braid), or None."""
        op = instruction.op
        if op in _PASSES:
            return self._item_fault(instruction, parted=True) or self._slot_fault(instruction)
        if op in _MESSAGES:
            return self._message_fault(instruction)
        if op in _ITEM_ONLY:
            return self._item_fault(instruction, parted=False) or self._hand_over_fault(instruction)
        if op in _FREE_CLOCK_OPS and self.plan.clock == "barrier":
            return f"{op} belongs to clock=free, the plan has clock=barrier"
        if op in _BUCKET_OPS:
            return self._bucket_fault(instruction) or self._slot_fault(instruction)
        if op in _EXCHANGES or (op is Op.WC and instruction.phase):
            return self._exchange_fault(instruction)
        if op is Op.WC and instruction.bucket >= 0:
            return self._bucket_fault(instruction)
        if instruction.queue:
            return self._group_fault(instruction.queue)
        return None

    def _item_fault(self, instruction: Instruction, *, parted: bool) -> str | None:
        train = self.plan.train
        stage = instruction.stage
        if stage not in self.here:
            known = stage <= self.last_stage
            return f"stage {stage} is not placed on this rank" if known else f"there is no stage {stage}"
        if instruction.microbatch >= train.m:
            return f"microbatch {instruction.microbatch} is out of range: m={train.m}"
        if train.slices == 1:
            if instruction.slice >= 0:
                return "the item names a slice, the plan has one slice"
        elif not 0 <= instruction.slice < train.slices:
            got = "none" if instruction.slice < 0 else str(instruction.slice)
            return f"slice out of range: got {got}, expected 0 to {train.slices - 1}"
        if not parted:
            return f"{instruction.op} names no part" if instruction.part else None
        parts = self.parts[stage]
        if not parts:
            return f"stage {stage} has no parts" if instruction.part else None
        if instruction.part not in parts:
            return (
                f"part of stage {stage}: got {instruction.part or 'none'}, expected one of {', '.join(parts)}"
            )
        return None

    def _allowed_letters(self, instruction: Instruction) -> tuple[tuple[str, ...], ...]:
        """Slot letters that the instruction may name, all combinations."""
        op, stage = instruction.op, instruction.stage
        if op in {Op.RF, Op.RB}:
            return (("h",),)
        if op is Op.ZERO:
            return (("q",) if self.buckets[stage, instruction.bucket].shard else (),)
        if op in {Op.AG, Op.OFF, Op.LD}:
            return (tuple({Op.AG: "p", Op.OFF: "o", Op.LD: "aw"}[op]),)
        if op not in _PASSES:
            return ((),)
        part = self.part_index(instruction)
        key = (op, stage, instruction.slice == 0, part)
        found = self._allowed.get(key)
        if found is None:
            found = self._allowed[key] = self._pass_letters(*key)
        return found

    def _pass_letters(self, op: Op, stage: int, first_slice: bool, part: int) -> tuple[tuple[str, ...], ...]:
        last_part = self.num_parts[stage] - 1
        if op is Op.F:
            output = ("h",) if part == last_part and stage < self.last_stage else ()
            keys = ("k",) if first_slice and part == 0 else ()
            whole = (*output, "a", "w", *keys)
            return (whole, (*output, *keys)) if part == 0 else (output,)
        if op is Op.RC:
            return (("a", "w") if part == 0 else (),)
        gradient = ("h",) if op in {Op.I, Op.B} and part == 0 and stage > 0 else ()
        kept = ("g",) if op is Op.I and part == last_part else ()
        return ((*gradient, *kept),)

    def _slot_fault(self, instruction: Instruction) -> str | None:
        slots = instruction.slots
        if slots:
            if slots not in self._slot_faults:
                self._slot_faults[slots] = self._range_fault(slots)
            if self._slot_faults[slots] is not None:
                return self._slot_faults[slots]
        letters = tuple(letter for letter, _ in slots)
        allowed = self._allowed_letters(instruction)
        if letters in allowed:
            return None
        wanted = " or ".join(" ".join(choice) or "none" for choice in allowed)
        return f"names slots of {' '.join(letters) or 'none'}, expected {wanted}"

    def _range_fault(self, slots: tuple[tuple[str, int], ...]) -> str | None:
        for letter, index in slots:
            pool = self.pools.get(letter)
            if pool is None:
                return f"this rank has no pool {letter}"
            if index >= pool.num:
                return f"slot {letter}{index} is out of range: pool {letter} has n={pool.num}"
        return None

    def _message_fault(self, instruction: Instruction) -> str | None:
        fault = self._item_fault(instruction, parted=False)
        if fault is not None:
            return fault
        op = instruction.op
        channel = self.channels.get(instruction.queue)
        if channel is None:
            return f"there is no channel {instruction.queue}"
        if _CLASS.get(op, channel.cls) != channel.cls:
            return f"channel {channel.name} is of class {channel.cls}"
        sends = op in _SENDER_SIDE
        if self.rank != (channel.src if sends else channel.dst):
            end = "sends into" if sends else "receives from"
            return f"rank {self.rank} never {end} channel {channel.name} {channel.src}>{channel.dst}"
        step = 1 if (channel.cls == "F") == sends else -1
        neighbour = instruction.stage + step
        if not 0 <= neighbour <= self.last_stage:
            return f"stage {instruction.stage} has no neighbour stage there"
        peer = channel.dst if sends else channel.src
        if peer not in self.plan.place[neighbour]:
            return f"channel {channel.name} leads to rank {peer}, where stage {neighbour} is not placed"
        return self._slot_fault(instruction) if op in {Op.RF, Op.RB} else None

    def _hand_over_fault(self, instruction: Instruction) -> str | None:
        if instruction.op in {Op.OFF, Op.LD}:
            return self._slot_fault(instruction)
        if instruction.op in {Op.LF, Op.LB}:
            neighbour = instruction.stage + (1 if instruction.op is Op.LF else -1)
            if neighbour not in self.here:
                return f"the neighbour stage {neighbour} is not on this rank"
        return None

    def _bucket_fault(self, instruction: Instruction) -> str | None:
        if (instruction.stage, instruction.bucket) not in self.buckets:
            return f"there is no bucket {instruction.stage}/{instruction.bucket} on this rank"
        return self._group_fault(instruction.queue) if instruction.queue else None

    def _group_fault(self, name: str) -> str | None:
        if name not in self.index.members:
            return f"there is no group {name}"
        members = self.index.members[name]
        return None if members is None or self.rank in members else f"this rank is no member of group {name}"

    def _exchange_fault(self, instruction: Instruction) -> str | None:
        fault = self._item_fault(instruction, parted=True)
        if fault is None and not instruction.part:
            fault = f"{instruction.op} needs a stage with parts"
        return fault or self._group_fault(instruction.queue)
