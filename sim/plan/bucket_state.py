"""The life of a rank's buckets in one step: ZERO, gradients, closing posts, norm, OPT; gathered parameters.

Rulings 21 and 22 of `docs/reference/plan-format.md`, section 10. Methods return what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Bucket

__all__ = ["BucketState", "Buckets"]

_Key = tuple[int, int]


@dataclass(slots=True)
class BucketState:
    """One bucket; `posted` and `waited` count the closing posts since the last ZERO."""

    declared: Bucket
    opened: bool = False
    open: bool = False
    posted: int = 0
    waited: int = 0
    stepped: bool = False
    gathered: bool = False
    gathering: bool = False
    judged: bool = False
    undone: bool = False
    q_slot: int = -1
    p_slot: int = -1

    @property
    def closed(self) -> bool:
        """Whether the gradient is complete: opened, and all closing posts are over."""
        return self.opened and self.waited == len(self.declared.reduce)


class Buckets:
    """All buckets of one rank, and its norms."""

    def __init__(self, declared: Mapping[_Key, Bucket], clip: float) -> None:
        self.states = {key: BucketState(bucket) for key, bucket in declared.items()}
        self.unclosed = set(self.states)
        self.clips = clip > 0
        self.num_norms = 0
        self.norms_waited = 0
        self.num_checks = 0
        self.checks_waited = 0

    def of(self, instruction: Instruction) -> BucketState:
        """State of the bucket that an instruction names."""
        return self.states[instruction.stage, instruction.bucket]

    def pass_fault(self, op: Op, used: Iterable[_Key]) -> str | None:
        """Whether a pass may use its buckets: parameters gathered, gradients open."""
        for key in used:
            state = self.states[key]
            name = f"bucket {key[0]}/{key[1]}"
            if op is not Op.W and state.declared.shard and not state.gathered:
                return f"{name} is sharded and not gathered: its AG must be waited before, and not freed"
            if op in {Op.W, Op.B} and not state.open:
                if not state.opened:
                    return f"no ZERO has opened {name}"
                return f"{name} is closed already: gradients after its closing post or OPT would be lost"
        return None

    def bucket_fault(self, instruction: Instruction) -> str | None:
        """What is wrong with ZERO, OPT, PV, UNDO, AG, RS, AR or FREE."""
        state = self.of(instruction)
        reduce = state.declared.reduce
        match instruction.op:
            case Op.ZERO:
                if state.open or state.stepped:
                    return "the bucket is open already" if state.open else "ZERO after the bucket's OPT"
                if state.opened and not (state.declared.shard and state.closed):
                    return "a second ZERO before the first gradient was reduced"
            case Op.OPT:
                if state.stepped:
                    return "a second OPT"
                if not state.opened:
                    return "OPT without a ZERO"
                if not state.closed:
                    return (
                        f"OPT before its closing posts are over: {state.waited} of {','.join(reduce)} waited"
                    )
            case Op.PV:
                return "a second PV" if state.judged else None
            case Op.UNDO:
                if state.opened or state.undone or not state.judged:
                    return "UNDO stands once, after the bucket's PV and before its ZERO"
            case Op.RS | Op.AR:
                return self._close_fault(instruction, state)
            case _:
                return self._gather_fault(instruction, state)
        return None

    @staticmethod
    def _close_fault(instruction: Instruction, state: BucketState) -> str | None:
        reduce = state.declared.reduce
        if (instruction.op is Op.RS) != bool(state.declared.shard):
            return "RS belongs to buckets with a shard, AR to those without"
        if not state.opened:
            return "no ZERO has opened the bucket"
        if state.posted >= len(reduce) or reduce[state.posted] != instruction.queue:
            wanted = reduce[state.posted] if state.posted < len(reduce) else "none left"
            return f"closing posts stand in the order of reduce: got {instruction.queue}, expected {wanted}"
        return None

    @staticmethod
    def _gather_fault(instruction: Instruction, state: BucketState) -> str | None:
        if not state.declared.shard:
            return f"{instruction.op} belongs to buckets with a shard"
        if instruction.op is Op.AG:
            if instruction.queue != state.declared.shard:
                return (
                    f"AG goes over the shard group: got {instruction.queue}, expected {state.declared.shard}"
                )
            return "the bucket is gathered already" if state.gathered or state.gathering else None
        return None if state.gathered else "FREE of a bucket that is not gathered, or whose AG is not waited"

    def norm_fault(self, instruction: Instruction) -> str | None:
        """What is wrong with the place of NORM, OPT, PV, UNDO, W or B among the norms."""
        op = instruction.op
        if op is Op.NORM and self.unclosed:
            stage, index = min(self.unclosed)
            return f"NORM before the gradient of bucket {stage}/{index} is complete"
        if op is Op.OPT and self.clips and (not self.num_norms or self.norms_waited < self.num_norms):
            return "OPT before a waited NORM, and the plan clips"
        if op in {Op.PV, Op.UNDO} and (not self.num_checks or self.checks_waited < self.num_checks):
            return f"{op} before a waited CHK"
        if op in {Op.W, Op.B} and self.num_norms:
            return f"{op} after NORM changes a gradient whose norm was taken"
        return None

    def apply(self, instruction: Instruction) -> None:
        """Take the effect of a bucket's instruction, NORM or CHK that was found right."""
        op = instruction.op
        if op is Op.NORM:
            self.num_norms += 1
        elif op is Op.CHK:
            self.num_checks += 1
        else:
            self._apply(op, instruction, self.of(instruction))

    def _apply(self, op: Op, instruction: Instruction, state: BucketState) -> None:
        if op is Op.ZERO:
            state.opened = state.open = True
            state.posted = state.waited = 0
            state.q_slot = instruction.slot("q")
            self._note(instruction, state)
        elif op is Op.OPT:
            state.stepped = True
            state.open = False
        elif op is Op.PV:
            state.judged = True
        elif op is Op.UNDO:
            state.undone = True
        elif op is Op.AG:
            state.gathering = True
            state.p_slot = instruction.slot("p")
        elif op is Op.FREE:
            state.gathered = False
            state.p_slot = -1
        else:
            state.posted += 1
            state.open = False

    def _note(self, instruction: Instruction, state: BucketState) -> None:
        key = (instruction.stage, instruction.bucket)
        if state.closed:
            self.unclosed.discard(key)
        else:
            self.unclosed.add(key)

    def waited(self, post: Instruction) -> int:
        """Take the effect of a post's wait; returns the `q` slot that ends with it, or -1."""
        if post.op is Op.NORM:
            self.norms_waited += 1
        elif post.op is Op.CHK:
            self.checks_waited += 1
        elif post.op is Op.AG:
            state = self.of(post)
            state.gathering, state.gathered = False, True
        else:
            state = self.of(post)
            state.waited += 1
            self._note(post, state)
            if state.closed:
                slot, state.q_slot = state.q_slot, -1
                return slot
        return -1

    def first_unstepped(self) -> _Key | None:
        """Lowest bucket without OPT, or None."""
        return min((key for key, state in self.states.items() if not state.stepped), default=None)
