"""Which models the engine, and the search for its plans, know: layers that are alike, a dense MLP each.

A plan's header has a family and sizes. Whatever a model has beyond them would be lost there, and what is
priced would be another model; so it is refused by name before it gets that far.
"""

from __future__ import annotations

from exactmap.errors import InfeasibleError, Place
from exactmap.sim.workload.kinds import ModelKind
from exactmap.sim.workload.shape import ModelShape

__all__ = ["require_plain", "special_features"]


def special_features(model: ModelShape) -> tuple[str, ...]:
    """What a model has that a plan cannot say; empty for a plain one.

    Examples
    --------
    >>> from exactmap.sim.workload.presets import find_preset
    >>> special_features(find_preset("llama3-8b")), special_features(find_preset("kimi-k2"))
    ((), ('latent attention', 'experts'))
    """
    has = {
        "MLPs without a gate": model.gated is False and model.kind is ModelKind.LLAMA,
        "MLPs with a gate": model.gated is True and model.kind is ModelKind.GPT,
        "latent attention": model.latent is not None,
        "experts": model.experts is not None,
        "a clamped gate": model.clamped,
        "a sliding window": model.window > 0,
        "state-space layers": model.state_space is not None,
        "layers of different kinds": bool(model.pattern),
        "layers that predict further tokens": model.mtp_layers > 0,
        "a padded vocabulary": model.vocab_multiple > 1,
    }
    return tuple(name for name, here in has.items() if here)


def require_plain(model: ModelShape, where: Place | None = None) -> None:
    """Refuse a model that has no plan.

    Parameters
    ----------
    model
        The model.
    where
        Where it was asked for; default: a field ``model``.

    Raises
    ------
    InfeasibleError
        If a plan cannot say all that the model has.
    """
    special = special_features(model)
    if special:
        raise InfeasibleError(
            "no plan can hold this model: engine and search know layers that are alike, with a dense MLP",
            where=where or Place(field="model"),
            got=f"{model.name} with {', '.join(special)}",
            hint="exactmap predict prices a step of such a model (docs/reference/rows.md)",
        )
