"""The verdict on a plan: phases 2 to 5 after the reader's phase 1.

Codes, lines and the order in which failures count: `docs/reference/plan-format.md`, sections 7 and 10. The C
reader gives the same verdicts. A large plan is first looked at as columns (`accept`), which proves nearly
every valid one valid; any other plan is walked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.plan.accept import accepts
from exactmap.sim.plan.declarations import check_declarations
from exactmap.sim.plan.pairing import check_pairs
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.program_map import program_ranks
from exactmap.sim.plan.program_walk import check_program
from exactmap.sim.plan.progress import check_progress
from exactmap.sim.plan.rank_view import PlanIndex
from exactmap.sim.plan.reader import MAX_FILE_BYTES, read_plan, sha256_of, wrong_size
from exactmap.sim.plan.verdict import ACCEPTED, PlanError, Verdict

__all__ = ["check_plan", "check_programs", "load_plan", "verdict"]

_FEW_INSTRUCTIONS: Final = 1000  # of a valid plan: from there on columns are quicker than a walk


def check_plan(plan: Plan, name: str = "plan") -> None:
    """Check a plan that was read or made in memory.

    Parameters
    ----------
    plan
        The plan.
    name
        The file's name, for messages.

    Raises
    ------
    PlanError
        With the code and line of the first failure; lines are 0 for a plan that did not come from a file.
    """
    fail = partial(PlanError, name=name)
    check_declarations(plan, fail)
    if sum(map(len, plan.programs)) < _FEW_INSTRUCTIONS or not accepts(plan):
        check_programs(plan, fail)


def check_programs(plan: Plan, fail: Callable[..., PlanError]) -> None:
    """Phases 3 to 5, instruction by instruction: these name the code and the line of what is wrong.

    Parameters
    ----------
    plan
        A plan with valid declarations.
    fail
        Makes the error: `PlanError` with the file's name bound.

    Raises
    ------
    PlanError
        With the code and line of the first failure.
    """
    ranks = program_ranks(plan)
    index = PlanIndex(plan)
    for program in plan.programs:
        check_program(index, program, ranks[program.name], fail)
    check_pairs(plan, fail)
    check_progress(plan, fail)


def verdict(data: bytes, name: str = "plan") -> Verdict:
    r"""The verdict on a plan's bytes; raises for no bytes whatever.

    Examples
    --------
    >>> verdict(b"exactmap-plan 2.0\n").code
    'text.version'
    """
    try:
        check_plan(read_plan(data, name), name)
    except PlanError as error:
        return Verdict(error.code, error.line, str(error), error.cycle)
    return Verdict(ACCEPTED)


def load_plan(path: Path | str) -> tuple[Plan, str]:
    """Read and check a plan file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    tuple[Plan, str]
        The plan, and the SHA-256 of the file's bytes in hexadecimal.

    Raises
    ------
    PlanError
        If the plan is refused.
    InvalidInputError
        If the file cannot be read.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise wrong_size(size, name)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            "the plan cannot be read", where=Place(name), got=error.strerror or type(error).__name__
        ) from error
    plan = read_plan(data, name)
    check_plan(plan, name)
    return plan, sha256_of(data)
