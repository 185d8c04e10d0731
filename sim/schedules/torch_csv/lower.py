"""What torch's lowering makes of an order: its passes with messages and collectives between them.

The rule is that of PyTorch 2.13.0 (`_add_unshard_reshard`, `_add_reduce_grad`, `_add_send_recv` and
`_defer_recv_ops` of ``torch/distributed/pipelining/schedules.py``), action for action, so that what is
written here is what torch would run, and can be checked before it does:

- before a pass, the next three stages that the rank computes are unsharded and all others resharded;
- behind the last W or B of a stage its gradients are reduced;
- all ranks take turns, an action each; as soon as a pass has a message to send, SEND is appended to its rank
  and RECV to the receiver's. So both ends see all their messages in one global order.
"""

from __future__ import annotations

from collections.abc import Sequence

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.torch_csv.actions import ACTION_CODES, ActionKind, Actions

__all__ = ["defer_receives", "lower_as_torch", "passes_of"]

_F, _I, _W, _B = (ACTION_CODES[kind] for kind in (ActionKind.F, ActionKind.I, ActionKind.W, ActionKind.B))
_UNSHARD, _RESHARD, _REDUCE_GRAD = (
    ACTION_CODES[kind] for kind in (ActionKind.UNSHARD, ActionKind.RESHARD, ActionKind.REDUCE_GRAD)
)
_SEND_F, _RECV_F, _SEND_B, _RECV_B = (
    ACTION_CODES[kind]
    for kind in (ActionKind.SEND_F, ActionKind.RECV_F, ActionKind.SEND_B, ActionKind.RECV_B)
)
_CODE_OF_OP = {CODES[Op.F]: _F, CODES[Op.I]: _I, CODES[Op.W]: _W, CODES[Op.B]: _B}
_NOT_IN_TORCH = {
    CODES[Op.RC]: "recomputation (RC)",
    CODES[Op.OFF]: "offload (OFF)",
    CODES[Op.LD]: "offload (LD)",
}

ACTIVE_STAGES = 3
"""How many stages torch keeps unsharded at once."""

_Row = tuple[int, int, int, int]  # kind, stage, microbatch, overlap
_Cell = list[_Row]  # one action, or the members of an overlap


def passes_of(order: Order) -> tuple[Actions, ...]:
    """The works of an order as torch's actions, rank by rank; a braid becomes an overlap.

    Raises
    ------
    InvalidInputError
        If torch has no action for them.

    Examples
    --------
    >>> from exactmap.sim.schedules.registry import make_order
    >>> passes_of(make_order("1f1b", 2, 2))[0].cells()
    ['0F0', '0F1', '0B0', '0B1']
    """
    if order.num_slices > 1:
        raise _refused("slices of a sequence", f"{order.num_slices} slices")
    for stage, ranks in enumerate(order.placement):
        if len(ranks) > 1:
            raise _refused("a stage on two ranks", f"stage {stage} on ranks {ranks[0]} and {ranks[1]}")
    out: list[Actions] = []
    for rank in range(order.num_ranks):
        works = order.works(rank)
        if not len(works):
            raise _refused("a rank without passes", f"rank {rank}")
        rows: list[_Row] = []
        columns = (works.op.tolist(), works.stage.tolist(), works.microbatch.tolist(), works.braid.tolist())
        for op, stage, microbatch, braid in zip(*columns, strict=True):
            if op in _NOT_IN_TORCH:
                raise _refused(_NOT_IN_TORCH[op], f"rank {rank}, stage {stage}, microbatch {microbatch}")
            rows.append((_CODE_OF_OP[op], stage, microbatch, braid))
        out.append(Actions.numbered(_without_single_braids(rows)))
    return tuple(out)


def _refused(what: str, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"a schedule file of torch cannot say {what}",
        got=got,
        expected="F, I, W and B of whole microbatches, each stage on one rank",
        hint="keep it as a plan",
    )


def _without_single_braids(rows: list[_Row]) -> list[_Row]:
    """A braid of one work is that work."""
    size: dict[int, int] = {}
    for row in rows:
        size[row[3]] = size.get(row[3], 0) + 1
    return [row if row[3] < 0 or size[row[3]] > 1 else (*row[:3], -1) for row in rows]


def lower_as_torch(order: Order, *, unshard: bool = True, reduce_grad: bool = True) -> tuple[Actions, ...]:
    """Passes with the messages and collectives that torch's lowering adds, rank by rank.

    Raises
    ------
    InvalidInputError
        If torch has no action for a work.
    InfeasibleError
        If the order waits for itself.

    Examples
    --------
    >>> from exactmap.sim.schedules.registry import make_order
    >>> lower_as_torch(make_order("1f1b", 2, 1), unshard=False)[1].cells()
    ['1RECV_F0', '1F0', '1B0', '1SEND_B0', '1REDUCE_GRAD']
    """
    ranks = [_cells(actions) for actions in passes_of(order)]
    if unshard:
        ranks = [_with_unshards(cells) for cells in ranks]
    if reduce_grad:
        ranks = [_with_reductions(cells, order.num_microbatches) for cells in ranks]
    rows = _with_messages(ranks, [stage_ranks[0] for stage_ranks in order.placement], order.num_microbatches)
    return tuple(Actions.numbered(rank_rows) for rank_rows in rows)


def _cells(actions: Actions) -> list[_Cell]:
    cells: list[_Cell] = []
    overlap = -1
    columns = (actions.kind, actions.stage, actions.microbatch, actions.overlap)
    for row in zip(*(column.tolist() for column in columns), strict=True):
        if row[3] >= 0 and row[3] == overlap:
            cells[-1].append(row)
        else:
            cells.append([row])
        overlap = row[3]
    return cells


def _with_unshards(cells: list[_Cell]) -> list[_Cell]:
    """Keep the next stages unsharded: before each pass reshard what is not among them, unshard what is."""
    # For each stage the numbers of its rows, later ones first, so that the next one stands at the end.
    uses: dict[int, list[int]] = {}
    first_row: list[int] = []
    number = sum(len(cell) for cell in cells)
    for cell in reversed(cells):
        number -= len(cell)
        first_row.append(number)
        for offset in reversed(range(len(cell))):
            uses.setdefault(cell[offset][1], []).append(number + offset)
    first_row.reverse()
    last_of_cell = [row + len(cell) - 1 for row, cell in zip(first_row, cells, strict=True)]
    cell_of_row = [at for at, cell in enumerate(cells) for _ in cell]

    out: list[_Cell] = []
    # A set as in torch: the order in which several stages are resharded at once is that of a set of integers.
    active: set[int] = set()
    for at, cell in enumerate(cells):
        for rows in uses.values():
            while rows and rows[-1] < first_row[at]:
                rows.pop()
        coming = sorted((rows[-1], stage) for stage, rows in uses.items() if rows)
        if len(coming) > ACTIVE_STAGES:
            # The members of an overlap count together.
            limit = last_of_cell[cell_of_row[coming[ACTIVE_STAGES - 1][0]]]
            coming = coming[:ACTIVE_STAGES] + [use for use in coming[ACTIVE_STAGES:] if use[0] <= limit]
        following = [stage for _, stage in coming]
        fetched = [stage for stage in following if stage not in active]
        for stage in [stage for stage in active if stage not in following]:
            active.remove(stage)
            out.append([(_RESHARD, stage, -1, -1)])
        for stage in fetched:
            active.add(stage)
            out.append([(_UNSHARD, stage, -1, -1)])
        out.append(cell)
    out += [[(_RESHARD, stage, -1, -1)] for stage in active]
    return out


def _with_reductions(cells: list[_Cell], num_microbatches: int) -> list[_Cell]:
    """Behind the pass that completes a stage's gradients, their reduction."""
    out: list[_Cell] = []
    done: dict[int, int] = {}
    for cell in cells:
        out.append(cell)
        for kind, stage, _, _ in cell:
            if kind in {_W, _B}:
                done[stage] = done.get(stage, 0) + 1
                if done[stage] == num_microbatches:
                    out.append([(_REDUCE_GRAD, stage, -1, -1)])
    return out


def _with_messages(ranks: list[list[_Cell]], rank_of: list[int], num_microbatches: int) -> list[list[_Row]]:
    """Let the ranks take turns; where a pass makes a message, append both its ends."""
    num_stages, m = len(rank_of), num_microbatches
    out: list[list[_Row]] = [[] for _ in ranks]
    # Whether the input of F, and of I or B, is there: sent, or made on the same rank.
    arrived = ([False] * (num_stages * m), [False] * (num_stages * m))
    arrived[0][:m] = [True] * m
    arrived[1][(num_stages - 1) * m :] = [True] * m
    at = [0] * len(ranks)
    left = list(range(len(ranks)))
    while left:
        progress = False
        for rank in left:
            cell = ranks[rank][at[rank]]
            if not all(
                kind not in {_F, _I, _B} or arrived[kind != _F][stage * m + microbatch]
                for kind, stage, microbatch, _ in cell
            ):
                continue
            progress = True
            at[rank] += 1
            out[rank] += cell
            for kind, stage, microbatch, _ in cell:
                forward = kind == _F
                target = stage + 1 if forward else stage - 1
                if kind not in {_F, _I, _B} or not 0 <= target < num_stages:
                    continue
                arrived[not forward][target * m + microbatch] = True
                if rank_of[target] != rank:
                    out[rank].append((_SEND_F if forward else _SEND_B, stage, microbatch, -1))
                    peer = out[rank_of[target]]
                    peer.append((_RECV_F if forward else _RECV_B, target, microbatch, -1))
        if not progress:
            rank = left[0]
            text = Actions.numbered(ranks[rank][at[rank]]).cells()[0]
            raise InfeasibleError(
                "the order waits for itself", where=f"rank {rank}", got=f"{text} never starts"
            )
        left = [rank for rank in left if at[rank] < len(ranks[rank])]
    return out


def defer_receives(ranks: Sequence[Actions], rank_of: Sequence[int]) -> tuple[Actions, ...]:
    """The same actions with every RECV as late as torch puts it with ``defer_pp_recv=True``.

    That is before the pass that consumes it, or, if the peer has the higher rank, before the next SEND to it.
    """
    return tuple(
        Actions.numbered(_with_late_receives(_cells(actions), rank, rank_of))
        for rank, actions in enumerate(ranks)
    )


def _with_late_receives(cells: list[_Cell], rank: int, rank_of: Sequence[int]) -> list[_Row]:
    out: list[_Row] = []
    waiting: dict[tuple[int, int, int], _Row] = {}
    for cell in cells:
        kind, stage, microbatch, _ = cell[0]
        if kind in {_RECV_F, _RECV_B}:
            waiting[kind, stage, microbatch] = cell[0]
            continue
        if kind in {_SEND_F, _SEND_B}:
            peer = rank_of[stage + 1 if kind == _SEND_F else stage - 1]
            if rank < peer:
                sources = {key: key[1] - 1 if key[0] == _RECV_F else key[1] + 1 for key in waiting}
                out += [waiting.pop(key) for key, source in sources.items() if rank_of[source] == peer]
        for member, at, number, _ in cell:
            if member in {_F, _I, _B}:
                receive = waiting.pop((_RECV_F if member == _F else _RECV_B, at, number), None)
                if receive is not None:
                    out.append(receive)
        out += cell
    # One that nothing consumes has no later place.
    return out + list(waiting.values())
