"""Build the model that a scenario asks for: a preset, a Hugging Face file, or its own sizes.

Sizes beside a preset or a file replace its own; the head dimension follows when heads or hidden size are
changed alone. Of latent attention, experts and state spaces single sizes can be replaced, too.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.document import Problems
from exactmap.sim.scenario.model_schema import ModelSection
from exactmap.sim.scenario.strict_yaml import Marked
from exactmap.sim.workload.huggingface import read_huggingface_config
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind, StateSpace
from exactmap.sim.workload.presets import find_preset

__all__ = ["resolve_model"]

_BLOCKS: dict[str, type[Experts | LatentAttention | StateSpace]] = {
    "latent": LatentAttention,
    "experts": Experts,
    "state_space": StateSpace,
}
_REQUIRED = ("kind", "layers", "hidden", "heads", "vocab", "positions")


def resolve_model(
    section: ModelSection, folder: Path, document: Marked, problems: Problems
) -> tuple[ModelConfig | None, tuple[str, ...]]:
    """Build the model and say what the user should know about it.

    Parameters
    ----------
    section
        The scenario's ``model``.
    folder
        Where a relative path starts.
    document
        The scenario, for places.
    problems
        Takes what is wrong; the model is then None.
    """
    sizes = section.model_dump(exclude={"preset", "huggingface"}, exclude_none=True)
    if section.preset is not None and section.huggingface is not None:
        place = document.place(("model", "huggingface"))
        problems.add(InvalidInputError("a model has one origin", where=place, got="preset and huggingface"))
        return None, ()
    try:
        if section.preset is not None:
            return _changed(find_preset(section.preset), sizes), ()
        if section.huggingface is not None:
            imported = read_huggingface_config(folder / section.huggingface)
            return _changed(imported.config, sizes), imported.notes
        return _inline(sizes, document, problems), ()
    except InvalidInputError as error:
        for problem in error.problems or (error,):
            where = problem.where
            field = where.field if isinstance(where, Place) and where.file is None else None
            path = tuple(field.split(".")) if field else ("model", "preset")
            problems.add(problem, document.place(path))
        return None, ()


def _changed(config: ModelConfig, sizes: dict[str, object]) -> ModelConfig:
    """Replace sizes of a known model; fields were checked by the schema."""
    if not sizes:
        return config
    changes = dict(sizes)
    if "kind" in changes:
        changes["kind"] = ModelKind(str(changes["kind"]))
    if "heads" in changes and "kv_heads" not in changes and config.heads == config.kv_heads:
        changes["kv_heads"] = changes["heads"]
    if changes.keys() & {"heads", "hidden"} and "head_dim" not in changes:
        changes["head_dim"] = max(
            1, _whole(changes, "hidden", config.hidden) // _whole(changes, "heads", config.heads)
        )
    missing = _set_blocks(changes, config)
    if missing:
        raise (
            missing[0]
            if len(missing) == 1
            else InvalidInputError("parts of the model lack sizes", problems=missing)
        )
    if "name" not in changes:
        changes["name"] = f"{config.name}*"
    return replace(config, **changes)  # type: ignore[arg-type]


def _set_blocks(sizes: dict[str, object], base: ModelConfig | None) -> list[InvalidInputError]:
    """Put the objects of `_BLOCKS` in place of their sections; returns what they lack."""
    problems: list[InvalidInputError] = []
    for block, make in _BLOCKS.items():
        if block not in sizes:
            continue
        given = cast(dict[str, object], sizes[block])
        below = None if base is None else getattr(base, block)
        if below is not None:
            given = {**asdict(below), **given}
        required = [field.name for field in fields(make) if field.default is MISSING]
        lacking = [name for name in required if name not in given]
        if lacking:
            where = Place(field=f"model.{block}")
            got = f"no {', '.join(lacking)}"
            problems.append(InvalidInputError("a part of the model lacks sizes", where=where, got=got))
            continue
        sizes[block] = make(**given)  # type: ignore[arg-type]
    return problems


def _whole(sizes: dict[str, object], key: str, default: int) -> int:
    value = sizes.get(key, default)
    return value if isinstance(value, int) else default


def _inline(sizes: dict[str, object], document: Marked, problems: Problems) -> ModelConfig | None:
    missing = [key for key in _REQUIRED if key not in sizes]
    if missing:
        problems.add(
            InvalidInputError(
                "the model lacks sizes",
                where=document.place(("model",)),
                got=f"no {', '.join(missing)}",
                expected="a preset, a huggingface file, or all sizes",
            )
        )
        return None
    kind = ModelKind(str(sizes["kind"]))
    hidden, heads = _whole(sizes, "hidden", 1), _whole(sizes, "heads", 1)
    if "head_dim" not in sizes and hidden % heads:
        problems.add(
            InvalidInputError(
                "heads do not divide the hidden size",
                where=document.place(("model", "heads")),
                got=str(heads),
                expected=f"a divisor of {hidden}, or model.head_dim beside it",
            )
        )
        return None
    defaults: dict[str, object] = {
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "ffn": 4 * hidden if kind is ModelKind.GPT else 8 * hidden // 3,
        "tied": kind is ModelKind.GPT,
    }
    lacking = _set_blocks(sizes, None)
    for problem in lacking:
        where = problem.where
        field = where.field if isinstance(where, Place) else None
        problems.add(problem, document.place(tuple((field or "model").split("."))))
    if lacking:
        return None
    return ModelConfig(**{**defaults, **sizes, "kind": kind})  # type: ignore[arg-type]
