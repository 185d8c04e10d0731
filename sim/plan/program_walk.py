"""Phase 3 of the checks: one program alone, walked line by line.

`docs/reference/plan-format.md`, section 7 and rulings 15 to 23 of section 10. Within a line the order of the
checks is ref, wait, work, order, data, bucket, norm, slot, limit; at END wait, work, bucket, slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from exactmap.sim.plan.bucket_state import Buckets
from exactmap.sim.plan.instruction import POSTS, WAITS, WORK, Instruction, Op
from exactmap.sim.plan.item_state import Away, Input, ItemState
from exactmap.sim.plan.plan import Program
from exactmap.sim.plan.rank_view import PlanIndex, RankView
from exactmap.sim.plan.slot_table import SlotTable
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_program", "queue_of"]

Fail = Callable[..., PlanError]

_PASSES: Final = frozenset({Op.F, Op.RC, Op.I, Op.B, Op.W})
_BACKWARD: Final = frozenset({Op.I, Op.B, Op.W})
_COPY: Final = "copy"
_COPY_OPS: Final = frozenset({Op.OFF, Op.LD, Op.WOFF, Op.WLD})
_CHANNEL_OPS: Final = frozenset({Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR})
_REDUCTIONS: Final = frozenset({Op.AG, Op.RS, Op.AR})
_NORMS: Final = frozenset({Op.NORM, Op.CHK})
_HINTS: Final = {
    "prog.wait": "each post has one wait, later in the program and in posting order",
    "prog.slot": "a slot ends where section 4 of docs/reference/plan-format.md says",
    "prog.limit": "wait for earlier posts first, or raise limit=",
}


def queue_of(instruction: Instruction) -> tuple[str, str]:
    """Queue of a post or a wait on its rank: kind (`chan`, `group` or `copy`) and name."""
    if instruction.op in _COPY_OPS:
        return _COPY, ""
    return ("chan" if instruction.op in _CHANNEL_OPS else "group"), instruction.queue


def check_program(index: PlanIndex, program: Program, rank: int, fail: Fail) -> None:
    """Check one program.

    Parameters
    ----------
    index
        A plan's declarations, found valid.
    program
        One of its programs.
    rank
        The pipeline rank that it is mapped to.
    fail
        Makes the error: `PlanError` with the file's name bound.

    Raises
    ------
    PlanError
        With a `prog.*` code.
    """
    _Walk(index, program, rank, fail).run()


def _operands(instruction: Instruction) -> tuple[object, ...]:
    return (*instruction[1:7], instruction.phase)


class _Walk:
    """State of the walk over one program."""

    def __init__(self, index: PlanIndex, program: Program, rank: int, fail: Fail) -> None:
        plan = self.plan = index.plan
        self.program = program
        self.rank = rank
        self.make_error = fail
        self.view = RankView(index, rank)
        self.slots = SlotTable(self.view.pools)
        self.buckets = Buckets(self.view.buckets, plan.train.clip)
        self.items: dict[tuple[int, int, int], ItemState] = {}
        self.keys_slots: dict[tuple[int, int], int] = {}
        self.queues: dict[tuple[str, str], deque[tuple[int, Instruction]]] = {}
        self.bucket_queues: dict[tuple[int, int], deque[int]] = {}
        self.num_waiting = 0
        self.line = 0
        self.instruction = Instruction(Op.END)

    def run(self) -> None:
        lines = self.program.lines or (0,) * len(self.program.instructions)
        for index, instruction in enumerate(self.program.instructions):
            self.line = lines[index]
            self.instruction = instruction
            op = instruction.op
            if op in WORK:
                self._work(instruction)
            elif op in POSTS:
                self._post(instruction, index)
            elif op in WAITS:
                self._wait(instruction)
            elif op is Op.END:
                self._end()
            else:
                self._note(instruction)

    def error(self, code: str, what: str) -> PlanError:
        return self.make_error(
            code,
            self.line,
            what,
            rank=self.rank,
            op=format_instruction(self.instruction),
            hint=_HINTS.get(code),
        )

    def require(self, code: str, wrong: str | None) -> None:
        if wrong is not None:
            raise self.error(code, wrong)

    def item(self, stage: int, microbatch: int, cut: int) -> ItemState:
        key = (stage, microbatch, cut)
        state = self.items.get(key)
        if state is None:
            state = self.items[key] = ItemState(
                self.view.num_parts[stage],
                x=Input.READY if stage == 0 else Input.NONE,
                dy=Input.READY if stage == self.view.last_stage else Input.NONE,
            )
        return state

    def name_slots(self, instruction: Instruction) -> None:
        for letter, index in instruction.slots:
            self.require("prog.slot", self.slots.name(letter, index, self.line))

    # Work

    def _work(self, instruction: Instruction) -> None:
        if instruction.op is Op.FB:
            self._passes(instruction.members)
        elif instruction.op in _PASSES:
            self._passes((instruction,))
        else:
            self.require("prog.ref", self.view.fault(instruction))
            self.require("prog.bucket", self.buckets.bucket_fault(instruction))
            self.require("prog.norm", self.buckets.norm_fault(instruction))
            self.name_slots(instruction)
            self.buckets.apply(instruction)

    def _passes(self, members: tuple[Instruction, ...]) -> None:
        view = self.view
        for member in members:
            self.require("prog.ref", view.fault(member))
        steps: list[int] = []
        states: list[ItemState] = []
        for member in members:
            last = view.num_parts[member.stage] - 1
            part = view.part_index(member) if last else 0
            step = last - part if member.op in _BACKWARD else part
            state = self.item(member.stage, member.microbatch, member.slice)
            steps.append(step)
            states.append(state)
            if step < state.steps_done(member.op):
                raise self.error("prog.work", f"{_name(member)} runs twice")
        if len(members) > 1 and len({(member.stage, member.microbatch) for member in members}) < len(members):
            raise self.error("prog.order", "members of a braid must be of different (stage, microbatch)")
        for member, step, state in zip(members, steps, states, strict=True):
            self.require("prog.order", self._order_fault(member, step, state))
        for member, state in zip(members, states, strict=True):
            self.require("prog.data", state.data_fault(member.op))
        for member in members:
            self.require("prog.bucket", self.buckets.pass_fault(member.op, view.used_buckets[member.stage]))
        for member in members:
            self.require("prog.norm", self.buckets.norm_fault(member))
        for member in members:
            self.name_slots(member)
        for member, step, state in zip(members, steps, states, strict=True):
            self._take_pass(member, step, state)

    def _order_fault(self, member: Instruction, step: int, state: ItemState) -> str | None:
        cut, num_slices = member.slice, self.plan.train.slices
        if num_slices == 1 or member.op in {Op.RC, Op.W}:
            return state.order_fault(member.op, step, None, sliced=False)
        neighbour = cut - 1 if member.op is Op.F else cut + 1
        if not 0 <= neighbour < num_slices:
            return state.order_fault(member.op, step, None, sliced=False)
        previous = self.items.get((member.stage, member.microbatch, neighbour))
        return state.order_fault(member.op, step, previous, sliced=True)

    def _take_pass(self, member: Instruction, step: int, state: ItemState) -> None:
        """Note a pass and end the slots that end with it."""
        op = member.op
        state.advance(op)
        for letter, index in member.slots:
            if letter == "a":
                state.a_slot = index
                state.forward_named_stash |= op is Op.F
            elif letter == "w":
                state.w_slot = index
            elif letter == "g":
                state.g_slot = index
            elif letter == "k":
                self.keys_slots[member.stage, member.microbatch] = index
            elif op is Op.F:
                state.y_slot = index
            else:
                state.dx_slot = index
        if op not in _BACKWARD or step < state.num_parts - 1:
            return
        end = self.slots.end
        if op is not Op.W:
            end("a", state.a_slot)
            state.a_slot = -1
            if member.slice == 0:
                end("k", self.keys_slots.pop((member.stage, member.microbatch), -1))
        if op is not Op.I:
            end("w", state.w_slot)
            end("g", state.g_slot)
            end("h", state.x_slot)
            end("h", state.dy_slot)
            state.w_slot = state.g_slot = state.x_slot = state.dy_slot = -1

    # Posts

    def _post(self, instruction: Instruction, index: int) -> None:
        self.require("prog.ref", self.view.fault(instruction))
        op = instruction.op
        if op in _REDUCTIONS:
            self.require("prog.bucket", self.buckets.bucket_fault(instruction))
        elif op in _NORMS:
            self.require("prog.norm", self.buckets.norm_fault(instruction))
        else:
            state = self.item(instruction.stage, instruction.microbatch, instruction.slice)
            self._item_post_fault(instruction, state)
        self.name_slots(instruction)
        if self.num_waiting >= self.plan.limit:
            raise self.error("prog.limit", f"more than limit={self.plan.limit} posts are not yet waited")
        self.num_waiting += 1
        self.queues.setdefault(queue_of(instruction), deque()).append((index, instruction))
        if op in _REDUCTIONS:
            key = (instruction.stage, instruction.bucket)
            self.bucket_queues.setdefault(key, deque()).append(index)
        self._take_post(instruction)

    def _item_post_fault(self, instruction: Instruction, state: ItemState) -> None:
        op = instruction.op
        if op in {Op.SF, Op.SB}:
            self.require("prog.order", state.output_fault(forward=op is Op.SF))
            self.require("prog.data", state.output_data_fault(forward=op is Op.SF))
        elif op in {Op.RF, Op.RB}:
            had = state.x if op is Op.RF else state.dy
            if had != Input.NONE:
                raise self.error("prog.order", "the item has had this input before")
        elif op is Op.OFF:
            self.require("prog.order", state.offload_fault())
        elif op is Op.LD:
            if state.away != Away.HOST:
                raise self.error("prog.order", "LD stands once, after the WOFF of its item")
        elif not self._part_ran(instruction, state):
            raise self.error("prog.order", f"that part of pass {instruction.phase} has not run")

    def _part_ran(self, instruction: Instruction, state: ItemState) -> bool:
        part = self.view.part_index(instruction)
        step = state.num_parts - 1 - part
        match instruction.phase:
            case "F":
                return part < max(state.forward, state.again)
            case "I":
                return step < state.input_gradient
            case _:
                return step < state.fused

    def _take_post(self, instruction: Instruction) -> None:
        op = instruction.op
        if op in _REDUCTIONS or op in _NORMS:
            self.buckets.apply(instruction)
            return
        state = self.item(instruction.stage, instruction.microbatch, instruction.slice)
        match op:
            case Op.SF:
                state.y_moved = True
            case Op.SB:
                state.dx_moved = True
            case Op.RF:
                state.x, state.x_slot = Input.POSTED, instruction.slot("h")
            case Op.RB:
                state.dy, state.dy_slot = Input.POSTED, instruction.slot("h")
            case Op.OFF:
                state.away, state.o_slot = Away.LEAVING, instruction.slot("o")
            case Op.LD:
                state.away = Away.COMING
                state.a_slot, state.w_slot = instruction.slot("a"), instruction.slot("w")
            case _:
                state.exchanges[instruction.phase] = state.exchanges.get(instruction.phase, 0) + 1

    # Waits

    def _wait(self, instruction: Instruction) -> None:
        self.require("prog.ref", self.view.fault(instruction))
        queue = self.queues.get(queue_of(instruction))
        if not queue:
            raise self.error("prog.wait", "nothing on its queue is left to wait for")
        index, post = queue[0]
        matches = _operands(post) == _operands(instruction)
        if matches and post.op in {Op.OFF, Op.LD}:
            matches = (post.op is Op.OFF) == (instruction.op is Op.WOFF)
        if not matches:
            text = format_instruction(post)
            raise self.error("prog.wait", f"the oldest post on its queue that is not yet waited is {text}")
        if post.op in _REDUCTIONS:
            pending = self.bucket_queues[post.stage, post.bucket]
            if pending[0] != index:
                oldest = format_instruction(self.program.instructions[pending[0]])
                raise self.error("prog.wait", f"an older post on the same bucket is not yet waited: {oldest}")
            pending.popleft()
        queue.popleft()
        self.num_waiting -= 1
        self._take_wait(post)

    def _take_wait(self, post: Instruction) -> None:
        op = post.op
        if op in _REDUCTIONS or op in _NORMS:
            self.slots.end("q", self.buckets.waited(post))
            return
        state = self.item(post.stage, post.microbatch, post.slice)
        match op:
            case Op.SF:
                self.slots.end("h", state.y_slot)
                state.y_slot = -1
            case Op.SB:
                self.slots.end("h", state.dx_slot)
                state.dx_slot = -1
            case Op.RF:
                state.x = Input.READY
            case Op.RB:
                state.dy = Input.READY
            case Op.OFF:
                state.away = Away.HOST
                self.slots.end("a", state.a_slot)
                self.slots.end("w", state.w_slot)
                state.a_slot = state.w_slot = -1
            case Op.LD:
                state.away = Away.BACK
                self.slots.end("o", state.o_slot)
                state.o_slot = -1
            case _:
                state.exchanges[post.phase] -= 1

    # Notes

    def _note(self, instruction: Instruction) -> None:
        op = instruction.op
        self.require("prog.ref", self.view.fault(instruction))
        if op is Op.FREE:
            self.require("prog.bucket", self.buckets.bucket_fault(instruction))
            self.slots.end("p", self.buckets.of(instruction).p_slot)
            self.buckets.apply(instruction)
        elif op in {Op.LF, Op.LB}:
            self._hand_over(instruction, forward=op is Op.LF)

    def _hand_over(self, instruction: Instruction, *, forward: bool) -> None:
        stage, microbatch, cut = instruction.stage, instruction.microbatch, instruction.slice
        giver = self.item(stage, microbatch, cut)
        self.require("prog.order", giver.output_fault(forward=forward))
        taker = self.item(stage + 1 if forward else stage - 1, microbatch, cut)
        if (taker.x if forward else taker.dy) != Input.NONE:
            raise self.error("prog.order", "the neighbour stage has had this input before")
        self.require("prog.data", giver.output_data_fault(forward=forward))
        if forward:
            giver.y_moved = True
            taker.x, taker.x_slot, giver.y_slot = Input.READY, giver.y_slot, -1
        else:
            giver.dx_moved = True
            taker.dy, taker.dy_slot, giver.dx_slot = Input.READY, giver.dx_slot, -1

    def _end(self) -> None:
        for queue in self.queues.values():
            if queue:
                raise self.error("prog.wait", f"{format_instruction(queue[0][1])} is never waited")
        for (stage, microbatch, cut), state in self.items.items():
            if not state.complete:
                name = f"{stage}.{microbatch}" + ("" if cut < 0 else f".{cut}")
                raise self.error("prog.work", f"item {name} has F but no whole backward pass")
        key = self.buckets.first_unstepped()
        if key is not None:
            raise self.error("prog.bucket", f"bucket {key[0]}/{key[1]} has no OPT")
        living = self.slots.first_living()
        if living is not None:
            letter, index, line = living
            raise self.error("prog.slot", f"slot {letter}{index} still lives: it was named at line {line}")


def _name(instruction: Instruction) -> str:
    """A pass without its slots, as text."""
    return format_instruction(instruction._replace(slots=()))
