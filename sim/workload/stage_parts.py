"""How a model's parameters lie in the stages of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from exactmap.sim.workload.kinds import Part

if TYPE_CHECKING:
    from exactmap.sim.workload.model import ModelConfig

__all__ = ["StageLike", "StageShape", "stage_parameters", "stage_parts"]


class StageLike(Protocol):
    """What costs depend on in a stage: the stages of a plan have it, and so has `StageShape`."""

    @property
    def num_layers(self) -> int:
        """Layers in the stage."""
        ...

    @property
    def embedding(self) -> bool:
        """Whether the token embedding is here."""
        ...

    @property
    def head(self) -> bool:
        """Whether the final norm and the head are here."""
        ...


@dataclass(frozen=True, slots=True)
class StageShape:
    """A stage without its place: how many layers, with or without embedding and head."""

    num_layers: int
    embedding: bool = False
    head: bool = False


def stage_parts(model: ModelConfig, stage: StageLike) -> tuple[Part, ...]:
    """Parts that a stage owns, in the order of a bucket's ``holds`` list.

    Examples
    --------
    >>> from exactmap.sim.workload.presets import find_preset
    >>> llama = find_preset("byte-tiny")
    >>> [part.value for part in stage_parts(llama, StageShape(2, embedding=True))]
    ['wte', 'layers']
    """
    owned = {
        Part.WTE: stage.embedding,
        Part.WPE: stage.embedding,
        Part.LAYERS: stage.num_layers > 0,
        Part.NORM: stage.head,
        Part.HEAD: stage.head,
    }
    return tuple(part for part, here in owned.items() if here and model.part_parameters(part) > 0)


def stage_parameters(model: ModelConfig, stage: StageLike) -> int:
    """Parameters of a stage of a model whose layers are alike.

    A tied head away from the embedding counts as a copy of it.

    Raises
    ------
    InvalidInputError
        If layers differ: their number alone does not say which a stage has.
    """
    outside = sum(
        model.part_parameters(part) for part in stage_parts(model, stage) if part is not Part.LAYERS
    )
    if stage.head and model.tied and not stage.embedding:
        outside += model.part_parameters(Part.WTE)
    return stage.num_layers * model.layer_parameters() + outside
