"""Which layers, embedding, head each stage of a pipeline holds, and which rank holds each stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from exactmap.errors import InvalidInputError, Place

__all__ = ["StageLayout", "lay_out", "read_layout", "stage_ranks"]


@dataclass(frozen=True, slots=True)
class StageLayout:
    """What one stage holds.

    Parameters
    ----------
    first, last
        Its layers: from `first` up to and without `last`.
    embedding, head
        Whether the token embedding, and final norm, head and loss are here.
    mtp
        Layers of multi-token prediction.
    """

    first: int
    last: int
    embedding: bool = False
    head: bool = False
    mtp: int = 0


@lru_cache(maxsize=256)
def lay_out(
    layers: int, mtp: int, stages: int, ranks: int, counts: tuple[int, ...]
) -> tuple[StageLayout, ...]:
    """Stages front to back.

    Layers are even where they can be. Where they cannot, but embedding and head make up the difference (126
    layers over 64 stages), those count as layers, as Megatron has it; where that does not fit either, the
    first stages have one layer more, and the last ones are spared for the head.

    Parameters
    ----------
    layers, mtp
        Layers of the model; layers of multi-token prediction, which lie with the head.
    stages, ranks
        Stages, chunks counted; pipeline ranks.
    counts
        Layers by stage, or by rank where there is one number per rank; empty: as above.

    Examples
    --------
    >>> [stage.last - stage.first for stage in lay_out(126, 0, 8, 8, ())]
    [15, 16, 16, 16, 16, 16, 16, 15]
    """
    if not counts:
        counts = _even(layers, mtp, stages)
    elif len(counts) == ranks < stages:
        chunks = stages // ranks
        counts = tuple(
            counts[rank] * (chunk + 1) // chunks - counts[rank] * chunk // chunks
            for chunk in range(chunks)
            for rank in range(ranks)
        )
    if sum(counts) != layers or len(counts) != stages:
        raise InvalidInputError(
            "layers of the stages do not add up to the model's",
            where=Place(field="stage_layers"),
            got=f"{sum(counts)} layers on {len(counts)} stages",
            expected=f"{layers} layers on {stages} stages",
        )
    out, first = [], 0
    for number, count in enumerate(counts):
        is_last = number == stages - 1
        out.append(StageLayout(first, first + count, number == 0, is_last, mtp if is_last else 0))
        first += count
    return tuple(out)


def _even(layers: int, mtp: int, stages: int) -> tuple[int, ...]:
    if layers % stages == 0:
        return (layers // stages,) * stages
    if stages > 1 and (layers + 2) % stages == 0:
        each = (layers + 2) // stages
        return (each - 1, *(each,) * (stages - 2), each - 1)
    if stages > 1 and mtp:
        # Recipes fill stages from the front: the last one has the further predictions, and heads for each.
        each = -(-layers // stages)
        return tuple(max(0, min(each, layers - each * stage)) for stage in range(stages))
    most, spare = divmod(layers, stages)
    return (most + 1,) * spare + (most,) * (stages - spare)


@lru_cache(maxsize=256)
def read_layout(text: str, layers: int, stages: int) -> tuple[StageLayout, ...]:
    """Read a layout in Megatron's notation (``TrainingSetup.layout``).

    Raises
    ------
    InvalidInputError
        If it has other letters, or other numbers of layers or stages than the model and its pipeline.

    Examples
    --------
    >>> stages = read_layout("Et*2|(t*2|)*2tmL", 7, 4)
    >>> [(stage.first, stage.last, stage.mtp) for stage in stages]
    [(0, 2, 0), (2, 4, 0), (4, 6, 0), (6, 7, 1)]
    """
    plain = text.replace(" ", "").replace(",", "")
    # A repeat larger than the model fits none; writing it out may not fit this machine either.
    if any(len(number) > 4 for number in re.findall(r"\d+", plain)):
        plain = ""
    plain = re.sub(r"\(([^()]*)\)\*(\d+)", lambda found: found[1] * int(found[2]), plain)
    plain = re.sub(r"([A-Za-z])\*(\d+)", lambda found: found[1] * int(found[2]), plain)
    parts = plain.split("|")
    if set(plain) - set("EtmL|") or len(parts) != stages or plain.count("t") != layers:
        raise InvalidInputError(
            "this pipeline layout does not fit the model",
            where=Place(field="layout"),
            got=f"{plain.count('t')} layers on {len(parts)} stages: {text}",
            expected=f"{layers} layers (t) on {stages} stages, with E, m, L where they belong",
        )
    out, first = [], 0
    for part in parts:
        count = part.count("t")
        out.append(StageLayout(first, first + count, "E" in part, "L" in part, part.count("m")))
        first += count
    return tuple(out)


@lru_cache(maxsize=256)
def stage_ranks(schedule: str, ranks: int, stages: int) -> tuple[tuple[int, ...], ...]:
    """Ranks that hold each stage: round and round, there and back (V), or from both ends (DualPipe)."""
    if schedule == "dualpipe":
        return tuple((stage, stages - 1 - stage) for stage in range(stages))
    if schedule in ("zb-v", "dualpipe-v", "v-half", "v-min"):
        return tuple(
            (stage % ranks if stage // ranks % 2 == 0 else ranks - 1 - stage % ranks,)
            for stage in range(stages)
        )
    return tuple((stage % ranks,) for stage in range(stages))
