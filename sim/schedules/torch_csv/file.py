"""Pipeline schedules as PyTorch's CSV: read one into an order, write an order as one.

Row r of the file is rank r, a cell is an action (`exactmap.sim.schedules.torch_csv.actions`), an empty cell
is a step in which the rank is idle. A file of passes alone is of the form ``compute_only``, which torch
lowers when it loads it; one with messages and collectives is of the form ``compute_comms``, which it runs
as it is. Both are described in `docs/reference/torch-csv.md`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes, write_atomically
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.schedules.order import Order, Works
from exactmap.sim.schedules.plan_order import order_of_plan
from exactmap.sim.schedules.torch_csv.actions import Action, Actions, parse_cell
from exactmap.sim.schedules.torch_csv.lower import lower_as_torch, passes_of
from exactmap.sim.schedules.torch_csv.passes import Finding, pass_findings

__all__ = ["MAX_SIZE_BYTES", "TorchSchedule", "parse_torch_csv", "read_torch_csv", "write_torch_csv"]

MAX_SIZE_BYTES = 1 << 28
MAX_PROBLEMS = 20
FORMS = ("compute_only", "compute_comms")


@dataclass(frozen=True, slots=True, eq=False)
class TorchSchedule:
    """A schedule as a file of torch holds it.

    Parameters
    ----------
    name
        Of the file, for messages.
    ranks
        Actions of each rank, idle cells dropped.
    lines
        Line of each rank in the file, from 1.
    placement
        The rank of each stage, as `Order` has it.
    num_microbatches
        Microbatches of one step: as many as most stages number.
    """

    name: str
    ranks: tuple[Actions, ...]
    lines: tuple[int, ...]
    placement: tuple[tuple[int, ...], ...]
    num_microbatches: int

    @property
    def form(self) -> str:
        """``compute_only`` if there are only passes, else ``compute_comms``."""
        return FORMS[any(not actions.is_pass.all() for actions in self.ranks)]

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self.ranks)

    @property
    def num_stages(self) -> int:
        """Number of stages over all ranks."""
        return len(self.placement)

    def cells(self) -> list[list[str]]:
        """Text of the cells of each rank, idle ones left out."""
        return [actions.cells() for actions in self.ranks]

    def order(self) -> Order:
        """The passes as an order; an overlap becomes a braid.

        Raises
        ------
        InvalidInputError
            If a pass is missing, stands twice or too early: every such place.
        """
        findings = pass_findings(self.ranks, self.placement, self.num_microbatches)
        if findings:
            raise self.refusal("its passes are no order of a step", findings)
        works = [
            Works.columns(actions.op, actions.stage, actions.microbatch, 0, actions.overlap)
            for actions in (actions.taken(actions.is_pass) for actions in self.ranks)
        ]
        return Order(self.num_microbatches, self.placement, works)

    def place(self, rank: int, cell: int = 0) -> Place:
        """Where a cell of a rank stands in the file; cell 0: the rank's line."""
        return Place(self.name, self.lines[rank], f"cell {cell}" if cell else None)

    def refusal(
        self, what: str, findings: Sequence[Finding], *, hint: str | None = None
    ) -> InvalidInputError:
        """An error that lists findings with their places, the first twenty of them."""
        problems = [
            InvalidInputError(f"{finding.action} {finding.why}", where=self.place(finding.rank, finding.cell))
            for finding in findings[:MAX_PROBLEMS]
        ]
        return InvalidInputError(
            what, where=self.name, problems=problems, hint=_with_rest(len(findings), hint)
        )


def read_torch_csv(path: str | Path) -> TorchSchedule:
    """Read a schedule of either form.

    Only the form of the file is checked here, and that each stage has passes on one rank;
    `exactmap.sim.schedules.torch_csv.check.check_torch` says whether the schedule is right.

    Raises
    ------
    InvalidInputError
        If it cannot be read or a cell is no action: line, cell, what was found, what was expected.
    """
    data = read_bytes(path, MAX_SIZE_BYTES, "schedule")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            "a byte that no action has", where=Place(path, line), got=hex(data[error.start]), expected="ASCII"
        ) from None
    return parse_torch_csv(text, str(path))


def parse_torch_csv(text: str, name: str = "schedule.csv") -> TorchSchedule:
    r"""Read a schedule from text; `name` stands for the file in messages.

    Raises
    ------
    InvalidInputError
        As `read_torch_csv`.

    Examples
    --------
    >>> schedule = parse_torch_csv("0F0,,,0B0\n,1F0,1B0\n")
    >>> schedule.form, schedule.num_stages, schedule.cells()
    ('compute_only', 2, [['0F0', '0B0'], ['1F0', '1B0']])
    """
    known: dict[str, tuple[Action, ...]] = {}
    ranks: list[Actions] = []
    lines: list[int] = []
    problems: list[InvalidInputError] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            cells: list[tuple[int, tuple[Action, ...]]] = []
            for number, raw in enumerate(row, 1):
                cell = raw.strip(" ")
                if not cell:
                    continue
                actions = known.get(cell)
                if actions is None:
                    try:
                        actions = known[cell] = parse_cell(cell)
                    except ValueError as error:
                        what, hint = error.args
                        where = Place(name, reader.line_num, f"cell {number}")
                        problems.append(_bad_cell(what, where, cell, hint))
                        continue
                cells.append((number, actions))
            if not cells and not problems:
                problems.append(
                    InvalidInputError(
                        f"rank {len(ranks)} has no actions",
                        where=Place(name, reader.line_num),
                        expected="one line per rank and none besides",
                    )
                )
            ranks.append(Actions.of(cells))
            lines.append(reader.line_num)
    except csv.Error as error:
        problems.append(InvalidInputError(f"no CSV: {error}", where=Place(name, reader.line_num)))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InvalidInputError(
            "this is no schedule of torch",
            where=name,
            problems=problems[:MAX_PROBLEMS],
            hint=_with_rest(len(problems)),
        )
    if not ranks:
        raise InvalidInputError("the schedule is empty", where=name, expected="one line of actions per rank")
    return _placed(name, tuple(ranks), tuple(lines))


def _with_rest(num_problems: int, hint: str | None = None) -> str | None:
    """A hint that begins with how many problems are not shown."""
    rest = f"{num_problems - MAX_PROBLEMS} more problems" if num_problems > MAX_PROBLEMS else None
    return "; ".join(part for part in (rest, hint) if part) or None


def _bad_cell(what: str, where: Place, cell: str, hint: str | None) -> InvalidInputError:
    shown = repr(cell) if len(cell) <= 60 else repr(cell[:60]) + ".."
    expected = "an action such as 2F0, 0SEND_F3, 1UNSHARD or (0F1;7B0)OVERLAP_F_B"
    return InvalidInputError(what, where=where, got=shown, expected=expected, hint=hint)


def _placed(name: str, ranks: tuple[Actions, ...], lines: tuple[int, ...]) -> TorchSchedule:
    """Find the rank of each stage, and the number of microbatches, from where passes stand."""
    held: dict[int, int] = {}
    num_of_stage: dict[int, int] = {}
    for rank, actions in enumerate(ranks):
        passes = actions.taken(actions.is_pass)
        if not len(passes):
            raise InvalidInputError(
                f"rank {rank} runs no pass", where=Place(name, lines[rank]), expected="at least an F and a B"
            )
        for stage in np.unique(passes.stage).tolist():
            rows = np.flatnonzero(passes.stage == stage)
            if held.setdefault(stage, rank) != rank:
                raise InvalidInputError(
                    f"stage {stage} has passes on rank {held[stage]} already",
                    where=Place(name, lines[rank], f"cell {passes.cell[rows[0]]}"),
                    got=passes.name(int(rows[0])),
                    expected="each stage on one rank",
                )
            num_of_stage[stage] = int(passes.microbatch[rows].max()) + 1
    gap = next((stage for stage in range(len(held)) if stage not in held), None)
    if gap is not None:
        raise InvalidInputError(
            f"no rank runs stage {gap}",
            where=name,
            got=f"stages up to {max(held)}",
            expected="no gap in their numbers",
        )
    # Nearly all stages agree; one that does not is what has to be found.
    counts = Counter(num_of_stage.values())
    num_microbatches = max(counts, key=lambda number: (counts[number], -number))
    num_passes = sum(int(actions.is_pass.sum()) for actions in ranks)
    if num_microbatches > num_passes:
        raise InvalidInputError(
            f"a microbatch {num_microbatches - 1}",
            where=name,
            got=f"{num_passes} passes",
            expected="microbatches numbered from 0",
        )
    placement = tuple((held[stage],) for stage in range(len(held)))
    return TorchSchedule(name, ranks, lines, placement, num_microbatches)


def write_torch_csv(
    order: Order | Plan,
    path: str | Path,
    form: str = "compute_only",
    *,
    unshard: bool = True,
    reduce_grad: bool = True,
) -> None:
    """Write an order, or that of a plan, as a file that ``_PipelineScheduleRuntime._load_csv`` reads.

    Parameters
    ----------
    order
        What each rank computes, or a plan: its passes are written, and torch's lowering of them; its own
        messages, reductions and optimizer are not.
    path
        The file to write.
    form
        ``compute_only``, or ``compute_comms`` with what torch's own lowering adds.
    unshard, reduce_grad
        Of ``compute_comms``: whether UNSHARD and RESHARD, and REDUCE_GRAD, are among it. Without REDUCE_GRAD
        torch neither reduces gradients over replicas nor divides them by the number of microbatches.

    Raises
    ------
    InvalidInputError
        If the file cannot say what the order does: slices, a stage on two ranks, recomputation, offload; of a
        plan also an optimizer that works between passes, replicas of their own, parts of a layer.
    InfeasibleError
        If the order waits for itself.
    """
    if form not in FORMS:
        raise InvalidInputError("unknown form", got=repr(form), expected=" or ".join(FORMS))
    if isinstance(order, Plan):
        order = _separable_order(order)
    if form == "compute_only":
        ranks = passes_of(order)
    else:
        ranks = lower_as_torch(order, unshard=unshard, reduce_grad=reduce_grad)
    # As csv.writer does, and torch with it.
    write_atomically(path, "".join(",".join(actions.cells()) + "\r\n" for actions in ranks))


def _separable_order(plan: Plan) -> Order:
    """The order of a plan that says no more, beside its order, than torch does by itself."""
    problem = ""
    if any(line.dp >= 0 for line in plan.maps):
        problem = "replicas with programs of their own"
    passes = [CODES[op] for op in (Op.F, Op.I, Op.W, Op.B, Op.FB)]
    for rank in range(plan.mesh.pp):
        if problem:
            break
        ops = plan.program(rank).table.op
        if np.isin(ops, (CODES[Op.PV], CODES[Op.UNDO])).any():
            problem = "a step that is validated late (PV, UNDO)"
            continue
        last_pass = np.flatnonzero(np.isin(ops, passes))[-1]
        if (ops[:last_pass] == CODES[Op.OPT]).any():
            problem = "an optimizer that works between passes (OPT)"
    if problem:
        raise InvalidInputError(
            f"a schedule file of torch cannot say {problem}",
            expected="passes alone, the same in all replicas",
            hint="keep it as a plan",
        )
    return order_of_plan(plan)
