"""The plan: instructions, text form, checks; one contract for three readers."""

from __future__ import annotations

from exactmap.sim.plan.check import check_plan, load_plan, verdict
from exactmap.sim.plan.instruction import NOTES, POSTS, WAITS, WORK, Instruction, Op
from exactmap.sim.plan.plan import Plan, Program
from exactmap.sim.plan.progress import find_cycle
from exactmap.sim.plan.reader import read_plan, sha256_of
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.verdict import PlanError, StuckActor, Verdict
from exactmap.sim.plan.writer import write_plan

__all__ = [
    "NOTES",
    "POSTS",
    "WAITS",
    "WORK",
    "Instruction",
    "Op",
    "Plan",
    "PlanError",
    "Program",
    "StuckActor",
    "Verdict",
    "check_plan",
    "find_cycle",
    "format_instruction",
    "load_plan",
    "read_plan",
    "sha256_of",
    "verdict",
    "write_plan",
]
