"""Read a model's shape from a Hugging Face ``config.json``; the file only, never the network.

What a file must say and what it may leave out follow the defaults that the families' own configurations
document. What the file has and costs hardly depend on (biases, norms of queries and keys, sinks, caps of
logits) becomes a note; what cannot be priced is an error, and so are missing keys: all of them are listed in
one message, nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.huggingface.deepseek import read_deepseek
from exactmap.sim.workload.huggingface.dense import (
    read_gemma,
    read_glm4,
    read_gpt2,
    read_llama,
    read_mistral,
    read_nemotron,
    read_olmo2,
    read_qwen2,
    read_qwen3,
)
from exactmap.sim.workload.huggingface.hybrid import read_nemotron_h
from exactmap.sim.workload.huggingface.keys import ImportedModel, Keys
from exactmap.sim.workload.huggingface.mixtures import (
    read_glm4_moe,
    read_gpt_oss,
    read_grok,
    read_llama4,
    read_mixtral,
    read_qwen2_moe,
    read_qwen3_moe,
)

__all__ = ["FAMILIES", "read_huggingface_config"]

_MAX_SIZE_BYTES = 4 * 2**20

FAMILIES: dict[str, Callable[[Keys, str], ImportedModel]] = {
    "gpt2": read_gpt2,
    "llama": read_llama,
    "mistral": read_mistral,
    "qwen2": read_qwen2,
    "qwen3": read_qwen3,
    "gemma": read_gemma,
    "gemma2": read_gemma,
    "gemma3_text": read_gemma,
    "glm4": read_glm4,
    "olmo2": read_olmo2,
    "nemotron": read_nemotron,
    "mixtral": read_mixtral,
    "qwen2_moe": read_qwen2_moe,
    "qwen3_moe": read_qwen3_moe,
    "glm4_moe": read_glm4_moe,
    "gpt_oss": read_gpt_oss,
    "llama4_text": read_llama4,
    "grok-1": read_grok,
    "deepseek_v2": read_deepseek,
    "deepseek_v3": read_deepseek,
    "kimi_k2": read_deepseek,
    "nemotron_h": read_nemotron_h,
}
"""Readers by `model_type`."""

_WITH_TEXT = frozenset({"llama4", "gemma3"})
"""Families whose language model stands in `text_config`, beside one for pictures, which is left out."""


def read_huggingface_config(path: str | Path) -> ImportedModel:
    """Read the shape of a model.

    Parameters
    ----------
    path
        A ``config.json``, or the folder that holds it.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, the architecture is unknown, keys are missing, or a value asks for
        something that the model cannot be; all problems are listed.
    """
    path = Path(path)
    if path.is_dir():
        path /= "config.json"
    keys = Keys(path, _read(path))
    name = str(keys.document.get("_name_or_path") or path.parent.name or path.stem)
    family = keys.document.get("model_type")
    if family in _WITH_TEXT:
        keys.note(f"the {family} model's text_config is read, what is beside it is left out")
        keys = keys.inside("text_config")
        family = keys.document.setdefault("model_type", f"{family}_text")
    read = FAMILIES.get(family) if isinstance(family, str) else None
    if read is None:
        raise InvalidInputError(
            "unknown architecture",
            where=Place(path, field="model_type"),
            got=json.dumps(family),
            expected=f"one of {', '.join(FAMILIES)}",
            hint="write the model's sizes into the scenario (model.kind, model.layers, ...)",
        )
    return read(keys, name)


def _read(path: Path) -> dict[str, object]:
    try:
        data = path.read_bytes()[: _MAX_SIZE_BYTES + 1]
        if len(data) > _MAX_SIZE_BYTES:
            raise InvalidInputError("the file is too large", where=Place(path), expected="at most 4 MiB")
        document: object = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except OSError as error:
        raise InvalidInputError("cannot read the file", where=Place(path), got=error.strerror) from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            "not a JSON document", where=Place(path, error.lineno), got=error.msg
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidInputError("not a JSON document in UTF-8", where=Place(path)) from None
    if not isinstance(document, dict):
        raise InvalidInputError("not a model's configuration", where=Place(path), expected="a JSON object")
    return cast(dict[str, object], document)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in pairs:
        if key in out:
            raise InvalidInputError("the key stands twice", where=Place(field=key))
        out[key] = value
    return out
