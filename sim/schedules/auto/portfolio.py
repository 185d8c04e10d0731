"""Hand-made orders as starting points, whatever of them belongs to a placement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from exactmap.errors import ExactmapError
from exactmap.sim.schedules.auto.problem import Problem, Sequences
from exactmap.sim.schedules.dualpipe import dualpipe_v
from exactmap.sim.schedules.gpipe import gpipe
from exactmap.sim.schedules.interleaved import breadth_first, interleaved, interleaved_zb
from exactmap.sim.schedules.one_f_one_b import eager_one_f_one_b, one_f_one_b
from exactmap.sim.schedules.order import Order, loop_placement, vee_placement
from exactmap.sim.schedules.v_repeat import v_half, v_min
from exactmap.sim.schedules.wave import hanayo
from exactmap.sim.schedules.zb_h import zb_h1, zb_h2
from exactmap.sim.schedules.zb_v import zb_v

__all__ = ["hand_made"]

#: (p, m) -> order.
_Make = Callable[[int, int], Order]

_ONE_CHUNK: dict[str, _Make] = {
    "1f1b": one_f_one_b,
    "eager-1f1b": eager_one_f_one_b,
    "zb-h1": zb_h1,
    "zb-h2": zb_h2,
    "gpipe": gpipe,
}
_TWO_CHUNKS_VEE: dict[str, _Make] = {
    "zb-v": zb_v,
    "v-half": v_half,
    "v-min": v_min,
    "dualpipe-v": dualpipe_v,
    "hanayo": lambda p, m: hanayo(p, m, 2),
}


def _many_chunks(p: int, m: int, v: int) -> dict[str, _Make]:
    makes: dict[str, _Make] = {
        "interleaved-zb": lambda p, m: interleaved_zb(p, m, v),
        "interleaved-1f1b": lambda p, m: interleaved(p, m, v),
        "breadth-first": lambda p, m: breadth_first(p, m, v),
    }
    for group in (3 * p // 2, 2 * p):
        if p < group <= m:
            makes[f"interleaved-zb in groups of {group}"] = lambda p, m, g=group: interleaved_zb(p, m, v, g)
    return makes


def hand_made(problem: Problem) -> Iterator[tuple[str, Callable[[Problem], Sequences | None]]]:
    """(name, maker) of the hand-made orders on the placement of a problem; makers take any m."""
    p, chunks = problem.num_ranks, problem.num_stages // problem.num_ranks
    if chunks == 1:
        makes = _ONE_CHUNK
    elif problem.placement == loop_placement(p, chunks):
        makes = _many_chunks(p, problem.num_microbatches, chunks)
    elif problem.placement == vee_placement(p):
        makes = _TWO_CHUNKS_VEE
    else:
        makes = {"hanayo": lambda p, m: hanayo(p, m, chunks)}
    for name, make in makes.items():
        yield name, partial(_sequences, make=make)


def _sequences(problem: Problem, make: _Make) -> Sequences | None:
    """Work numbers of a hand-made order, or nothing where it has no such m."""
    try:
        order = make(problem.num_ranks, problem.num_microbatches)
    except ExactmapError:
        return None
    return problem.sequences(order)
