"""Number formats of a training run: what products compute in, and the bytes of each class of tensors."""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.errors import InvalidInputError, Place

__all__ = ["Formats", "find_formats", "formats_of_plan"]


@dataclass(frozen=True, slots=True)
class Formats:
    """Widths of the classes of tensors.

    Parameters
    ----------
    compute
        Format of matrix products, as a GPU's peak is named: ``fp32``, ``bf16``, ``fp8``.
    act_bytes
        Activations, and what is sent between stages.
    param_bytes
        Parameters as products read them.
    grad_bytes
        Gradients as they are accumulated and reduced.
    master_bytes
        The optimizer's own copy of the parameters; 0 where there is none.
    moment_bytes
        Each of AdamW's two moments.
    """

    compute: str
    act_bytes: int
    param_bytes: int
    grad_bytes: int
    master_bytes: int
    moment_bytes: int

    @property
    def state_bytes(self) -> int:
        """Bytes of one parameter's whole state."""
        return self.param_bytes + self.grad_bytes + self.master_bytes + 2 * self.moment_bytes

    @property
    def update_bytes(self) -> int:
        """Bytes that AdamW moves for one parameter: the gradient in; weight and moments in and out."""
        weight = self.master_bytes or self.param_bytes
        cast = self.param_bytes if self.master_bytes else 0
        return self.grad_bytes + 2 * (weight + 2 * self.moment_bytes) + cast


_FORMATS = {
    "fp32": Formats("fp32", act_bytes=4, param_bytes=4, grad_bytes=4, master_bytes=0, moment_bytes=4),
    # Megatron-LM's mixed precision: bf16 weights, fp32 gradients, master weights and moments.
    "bf16": Formats("bf16", act_bytes=2, param_bytes=2, grad_bytes=4, master_bytes=4, moment_bytes=4),
    # Products in fp8 with casts; weights and activations are kept in bf16.
    "fp8": Formats("fp8", act_bytes=2, param_bytes=2, grad_bytes=4, master_bytes=4, moment_bytes=4),
}
_PLAN_TYPES = {"f32": ("fp32", 4), "bf16": ("bf16", 2), "f16": ("bf16", 2), "f8": ("fp8", 1)}


def find_formats(precision: str) -> Formats:
    """Formats of a scenario's precision: ``fp32``, ``bf16`` or ``fp8``."""
    try:
        return _FORMATS[precision]
    except KeyError:
        raise InvalidInputError(
            "unknown precision", where=Place(field="precision"), got=precision, expected=", ".join(_FORMATS)
        ) from None


def formats_of_plan(*, param: str, grad: str, act: str, moment: str) -> Formats:
    """Formats of a plan's ``precision`` line; narrow parameters get a float32 master copy.

    Examples
    --------
    >>> formats_of_plan(param="bf16", grad="f32", act="bf16", moment="f32").state_bytes
    18
    """
    types: dict[str, tuple[str, int]] = {}
    for name, word in (("param", param), ("grad", grad), ("act", act), ("moment", moment)):
        known = _PLAN_TYPES.get(word)
        if known is None:
            raise InvalidInputError(
                "no cost is known for this type",
                where=Place(field=name),
                got=word,
                expected=", ".join(_PLAN_TYPES),
            )
        types[name] = known
    compute, act_bytes = types["act"]
    param_bytes = types["param"][1]
    return Formats(
        compute,
        act_bytes=act_bytes,
        param_bytes=param_bytes,
        grad_bytes=types["grad"][1],
        master_bytes=0 if param_bytes == 4 else 4,
        moment_bytes=types["moment"][1],
    )
