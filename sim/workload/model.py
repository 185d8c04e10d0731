"""A decoder-only transformer as numbers: its shape.

Parameters of one layer of the two plain families, h = hidden, q = heads x head_dim, k = kv_heads x head_dim,
f = ffn::

    gpt    2 LayerNorms with bias 4h;  qkv h(q+2k) + (q+2k);  projection qh + h;  MLP hf + f + fh + h
    llama  2 RMSNorms 2h;              qkv h(q+2k);           projection qh;      gated MLP 3hf

Outside the layers: token embedding vocab x h (``wte``), learned positions x h for gpt (``wpe``), a final norm
(``norm``: 2h for gpt, h for llama) and an untied head vocab x h (``head``). Counts follow the public
weights of GPT-2 (openai/gpt-2) and Llama 3 (meta-llama/llama3); the tests compare them with the published
totals. `exactmap.sim.workload.parameters` counts latent attention, experts and state spaces too.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.blocks import Experts, LatentAttention, StateSpace
from exactmap.sim.workload.kinds import LayerKind, Mixer, Mlp, ModelKind, Part
from exactmap.sim.workload.model_checks import find_problems
from exactmap.sim.workload.parameters import LayerParameters, count_layer, count_parameters
from exactmap.sim.workload.plain import special_features
from exactmap.sim.workload.shape import ModelShape
from exactmap.sim.workload.stage_parts import StageLike, StageShape, stage_parameters, stage_parts

__all__ = [
    "Experts",
    "LatentAttention",
    "LayerKind",
    "Mixer",
    "Mlp",
    "ModelConfig",
    "ModelKind",
    "Part",
    "StageLike",
    "StageShape",
    "StateSpace",
    "stage_parameters",
    "stage_parts",
]


@dataclass(frozen=True, slots=True)
class ModelConfig(ModelShape):
    """The shape of a decoder-only transformer; fields as `exactmap.sim.workload.shape.ModelShape` has them.

    Raises
    ------
    InvalidInputError
        If a size is not positive or the sizes do not fit each other; all problems are listed.

    Examples
    --------
    >>> gpt2 = ModelConfig(
    ...     ModelKind.GPT,
    ...     layers=12,
    ...     hidden=768,
    ...     heads=12,
    ...     kv_heads=12,
    ...     head_dim=64,
    ...     ffn=3072,
    ...     vocab=50257,
    ...     positions=1024,
    ...     tied=True,
    ... )
    >>> gpt2.num_parameters()
    124439808
    """

    def __post_init__(self) -> None:
        """Check every size and how the sizes fit each other."""
        problems = find_problems(self)
        if problems:
            message = f"model {self.name!r} cannot be built"
            raise problems[0] if len(problems) == 1 else InvalidInputError(message, problems=problems)

    @property
    def is_plain(self) -> bool:
        """Whether all layers are alike, with usual attention and a dense MLP: what the engine runs."""
        return not special_features(self)

    def layer_matrix_parameters(self, kind: LayerKind | None = None) -> int:
        """Parameters of one layer that sit in matrices which a token meets, so that products read them."""
        return self._count_layer(kind).matrices

    def layer_parameters(self, kind: LayerKind | None = None) -> int:
        """Parameters of one layer, norms, biases and all experts included.

        Parameters
        ----------
        kind
            Which layer; may be left out where all are alike.

        Raises
        ------
        InvalidInputError
            If no kind is given and layers differ.
        """
        return self._count_layer(kind).total

    def _count_layer(self, kind: LayerKind | None) -> LayerParameters:
        kinds = {kind} if kind is not None else set(self.layer_kinds())
        if len(kinds) > 1:
            raise InvalidInputError(
                "layers differ, and none is named", got=f"{len(kinds)} kinds in {self.name}", expected="one"
            )
        return count_layer(self, kinds.pop())

    def part_parameters(self, part: Part) -> int:
        """Parameters of one part; `Part.LAYERS` is all layers of the trunk, and a tied head has none."""
        match part:
            case Part.WTE:
                return self.vocab * self.hidden
            case Part.WPE:
                return self.positions * self.hidden if self.kind is ModelKind.GPT else 0
            case Part.LAYERS:
                return count_parameters(self).layers.total
            case Part.NORM:
                return (2 if self.kind is ModelKind.GPT else 1) * self.hidden
            case Part.HEAD:
                return 0 if self.tied else self.vocab * self.hidden

    def num_parameters(self) -> int:
        """All parameters that are trained, each counted once."""
        return count_parameters(self).total

    def num_active_parameters(self) -> int:
        """Parameters that work on a token: of the routed experts those that it visits, tables whole.

        Layers that predict further tokens are left out, as publications do.
        """
        return count_parameters(self).active

    def num_matrix_parameters(self) -> int:
        """Parameters that products read for every token, as often as they do.

        Matrices of the layers (of routed experts those that a token visits) and the head, tied or not, with
        its padding; each further prediction reads the head once more.
        """
        count = count_parameters(self)
        head = (1 + self.mtp_layers) * self.padded_vocab() * self.hidden
        times = self.mtp_layers if self.mtp_repeated else 1
        return count.layers.matrices + times * count.prediction.matrices + head
