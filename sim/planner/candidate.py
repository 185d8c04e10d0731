"""Candidates: every way to cut a model over a machine that the user allows, and why others fall away at once.

A candidate fixes tp, cp, pp, dp, the chunks per rank v, the microbatch and the schedule. The number of
data-parallel replicas follows: the largest one that the GPUs allow and that divides the batch, unless the
user pins it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from exactmap.errors import InvalidInputError
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.schedules.registry import SCHEDULES, find_schedule
from exactmap.sim.schedules.schedule import Schedule

__all__ = [
    "ONE_RANK",
    "Candidate",
    "Rejection",
    "SearchSpace",
    "divisors",
    "enumerate_candidates",
    "goes_together",
    "has_kinds",
    "judge",
    "miss_key",
    "nearest_miss",
    "replicas",
]

ONE_RANK = ("1f1b", "gpipe", "1f1b-recompute")
"""Schedules that a pipeline of one rank is tried with; the others are 1f1b there."""


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """One layout: mesh sizes, chunks per pipeline rank, microbatch in sequences, schedule by name.

    `zero` is 1 where replicas share the optimizer's state: parameters and gradients rest cut over them, are
    gathered before a step and reduced to the shards behind it.
    """

    tp: int
    cp: int
    pp: int
    dp: int
    chunks: int
    microbatch: int
    num_microbatches: int
    schedule: str
    zero: int = 0

    @property
    def num_gpus(self) -> int:
        """GPUs that work."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def label(self) -> str:
        """Short name for tables: the axes that are not 1, then the schedule."""
        axes = (("tp", self.tp), ("cp", self.cp), ("pp", self.pp), ("dp", self.dp), ("v", self.chunks))
        words = [f"{name}{size}" for name, size in axes if size > 1 or name in {"pp", "dp"}]
        zero = [f"zero{self.zero}"] if self.zero else []
        return " ".join([*words, *zero, f"mb{self.microbatch}x{self.num_microbatches}", self.schedule])


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that fell away: `rule` groups the reasons, `why` says it with numbers.

    `excess` says by how much it missed, to find the nearest miss of a rule: bytes over the budget, GPUs or
    stages too many.
    """

    candidate: Candidate
    rule: str
    why: str
    excess: int = 0


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What may vary, and the sizes that everything must divide.

    Parameters
    ----------
    tp, cp, pp, chunks, microbatch, schedules
        Allowed values, not empty.
    dp
        Allowed numbers of replicas; empty: as many as fit.
    zero
        Allowed stages: 0, 1.
    all_replicas
        Without `dp`: whether every number of replicas that fits is tried, or the largest alone. Fewer
        replicas only make a step longer, so the largest does unless GPUs count.
    num_gpus
        GPUs that may be used.
    global_batch
        Sequences per step.
    layers, heads, kv_heads, seq
        Of the model and the training: what pp x v, tp and cp must fit.
    """

    tp: tuple[int, ...]
    cp: tuple[int, ...]
    pp: tuple[int, ...]
    chunks: tuple[int, ...]
    microbatch: tuple[int, ...]
    schedules: tuple[str, ...]
    num_gpus: int
    global_batch: int
    layers: int
    heads: int
    kv_heads: int
    seq: int
    dp: tuple[int, ...] = ()
    zero: tuple[int, ...] = (0,)
    all_replicas: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty axis: it would make the search silently empty."""
        for name in ("tp", "cp", "pp", "chunks", "microbatch", "schedules", "zero"):
            if not getattr(self, name):
                raise InvalidInputError(f"nothing to choose from for {name}", expected="at least one value")
        for name in self.schedules:
            why = _unpriced(find_schedule(name))
            if why:
                raise InvalidInputError(
                    "the search cannot price this schedule",
                    where="parallel.schedule",
                    got=f"{name}, which {why}",
                    expected=", ".join(each.name for each in SCHEDULES.values() if not _unpriced(each)),
                )
        if not has_kinds(self.schedules, self.chunks):
            raise InvalidInputError(
                "no schedule goes with these chunks",
                where="parallel.chunks",
                got=f"{', '.join(map(str, self.chunks))} for {', '.join(self.schedules)}",
                expected=", ".join(f"{_chunks_of(name)} for {name}" for name in self.schedules),
            )


def _unpriced(schedule: Schedule) -> str:
    """What a schedule does that the search knows no memory for, or nothing."""
    reasons = (
        (schedule.slices, "cuts sequences into slices"),
        (schedule.two_ranks, "holds each stage on two ranks"),
        (schedule.limits and schedule.name not in CLOSED_FORMS, "is made for a stash limit"),
    )
    return next((why for applies, why in reasons if applies), "")


def goes_together(name: str, chunks: int) -> bool:
    """Interleaving is what chunks are for; the other orders have one a rank."""
    schedule = find_schedule(name)
    return chunks == schedule.fixed_chunks if schedule.fixed_chunks else schedule.many_chunks == (chunks > 1)


def has_kinds(schedules: Iterable[str], chunks: Iterable[int]) -> bool:
    """Whether any of some schedules goes with any of some numbers of chunks."""
    return any(goes_together(schedule, number) for schedule, number in product(schedules, chunks))


def _chunks_of(name: str) -> str:
    schedule = find_schedule(name)
    return str(schedule.fixed_chunks or ("2 or more" if schedule.many_chunks else 1))


def miss_key(rejection: Rejection) -> tuple[bool, int]:
    """By how much a candidate missed, to sort by: of memory first, since that is what a user can trade."""
    return rejection.rule != "memory", rejection.excess


def nearest_miss(rejections: Iterable[Rejection]) -> Rejection:
    """The rejection that missed by least."""
    return min(rejections, key=miss_key)


def divisors(number: int) -> tuple[int, ...]:
    """All divisors in ascending order.

    Examples
    --------
    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    small = [value for value in range(1, int(number**0.5) + 1) if number % value == 0]
    return tuple(sorted({*small, *(number // value for value in small)}))


def enumerate_candidates(space: SearchSpace) -> Iterator[Candidate | Rejection]:
    """All combinations, each as a candidate or as the first rule that it breaks; in a fixed order.

    A schedule without chunks takes v = 1, one that needs chunks v >= 2, so no layout comes twice.
    """
    batch_divisors = divisors(space.global_batch)
    for tp in space.tp:
        for cp in space.cp:
            for pp in space.pp:
                for microbatch in space.microbatch:
                    for dp in replicas(space, batch_divisors, tp * cp * pp, microbatch):
                        for schedule in space.schedules:
                            for chunks, zero in product(space.chunks, space.zero):
                                if not goes_together(schedule, chunks):
                                    continue
                                num_microbatches = space.global_batch // (dp * microbatch)
                                candidate = Candidate(
                                    tp, cp, pp, dp, chunks, microbatch, num_microbatches, schedule, zero
                                )
                                yield judge(space, candidate)


def replicas(
    space: SearchSpace, batch_divisors: tuple[int, ...], gpus_each: int, microbatch: int
) -> tuple[int, ...]:
    """Replica counts to try: those asked for, else what fits (1 where none does: it says why)."""
    if space.dp:
        return space.dp
    fitting = [
        dp
        for dp in batch_divisors
        if dp * gpus_each <= space.num_gpus and space.global_batch % (dp * microbatch) == 0
    ]
    return tuple(fitting) if space.all_replicas and fitting else (max(fitting, default=1),)


def judge(space: SearchSpace, candidate: Candidate) -> Candidate | Rejection:
    """The candidate, or the first rule that it breaks; `exactmap.sim.planner.cut` has them for columns."""
    tp, pp = candidate.tp, candidate.pp
    if candidate.num_gpus > space.num_gpus:
        why = f"needs {candidate.num_gpus:,} GPUs, {space.num_gpus:,} may be used"
        return Rejection(candidate, "too few GPUs", why, candidate.num_gpus - space.num_gpus)
    if space.global_batch % (candidate.dp * candidate.microbatch):
        group = f"dp {candidate.dp} x microbatch {candidate.microbatch}"
        why = f"{group} does not divide the batch of {space.global_batch:,} sequences"
        return Rejection(candidate, "batch not divisible", why)
    if pp * candidate.chunks > space.layers:
        num_stages = pp * candidate.chunks
        why = f"{num_stages} stages ({pp} ranks x {candidate.chunks} chunks), {space.layers} layers"
        return Rejection(candidate, "too few layers", why, num_stages - space.layers)
    if space.heads % tp or (space.kv_heads % tp and tp % space.kv_heads):
        return Rejection(
            candidate,
            "heads not divisible",
            f"tp {tp} does not fit {space.heads} heads, {space.kv_heads} for keys and values",
        )
    if space.seq % (2 * candidate.cp if candidate.cp > 1 else 1):
        return Rejection(
            candidate,
            "sequence not divisible",
            f"{2 * candidate.cp} pieces (cp {candidate.cp}, two each) do not divide {space.seq:,} tokens",
        )
    if candidate.zero and candidate.dp * candidate.cp == 1:
        return Rejection(candidate, "nothing to shard", "one replica has nobody to share its state with")
    if pp == 1 and candidate.schedule not in ONE_RANK:
        return Rejection(candidate, "no pipeline", f"{candidate.schedule} on one rank is 1f1b")
    problem = find_schedule(candidate.schedule).problem(pp, candidate.num_microbatches, candidate.chunks)
    return Rejection(candidate, "schedule", problem) if problem else candidate
