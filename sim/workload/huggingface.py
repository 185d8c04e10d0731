"""Read a model's shape from a Hugging Face ``config.json``; the file only, never the network.

Two families are known: ``gpt2`` and ``llama``. What a file must say and what it may leave out follow the
defaults that the families' own configurations document. Anything that the model here cannot be (another
activation, attention biases, mixtures of experts ...) is an error, and so are missing keys: all of them are
listed in one message, nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.model import ModelConfig, ModelKind

__all__ = ["ImportedModel", "read_huggingface_config"]

_MAX_SIZE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model's shape and what the file said beyond it.

    Parameters
    ----------
    config
        The shape.
    notes
        Sentences on what the file has and costs do not depend on, to be shown to the user.
    """

    config: ModelConfig
    notes: tuple[str, ...] = ()


class _Keys:
    """The file's keys; collects every problem."""

    def __init__(self, source: Path, document: dict[str, object]) -> None:
        self.source = source
        self.document = document
        self.problems: list[InvalidInputError] = []

    def fail(self, key: str, what: str, got: object = None, expected: str | None = None) -> None:
        """Note a problem."""
        shown = None if got is None else json.dumps(got)[:80]
        self.problems.append(
            InvalidInputError(what, where=Place(self.source, field=key), got=shown, expected=expected)
        )

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive whole number; without a default it must be there."""
        value = self.document.get(key)
        if value is None:
            if default is None:
                self.fail(key, "the key is missing", None, "a whole number")
                return 1
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.fail(key, "wrong value", value, "a positive whole number")
            return 1
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.document.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            self.fail(key, "wrong value", value, "a positive number")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.document.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "wrong value", value, "true or false")
            return default
        return value

    def only(self, key: str, allowed: tuple[object, ...], default: object) -> None:
        """Refuse any value that the model here cannot have."""
        value = self.document.get(key, default)
        if value not in allowed:
            self.fail(key, "not supported", value, " or ".join(json.dumps(entry) for entry in allowed))


def _read_gpt2(keys: _Keys, name: str) -> ImportedModel:
    keys.only("activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
    keys.only("scale_attn_by_inverse_layer_idx", (False,), False)
    keys.only("add_cross_attention", (False,), False)
    keys.only("scale_attn_weights", (True,), True)
    hidden, heads = keys.integer("n_embd"), keys.integer("n_head")
    if hidden % heads:
        keys.fail("n_head", "does not divide n_embd", heads, f"a divisor of {hidden}")
    fields = {
        "layers": keys.integer("n_layer"),
        "ffn": keys.integer("n_inner", 4 * hidden),
        "vocab": keys.integer("vocab_size"),
        "positions": keys.integer("n_positions"),
    }
    epsilon = keys.number("layer_norm_epsilon", 1e-5)
    tied = keys.flag("tie_word_embeddings", default=True)
    _raise(keys)
    config = ModelConfig(
        kind=ModelKind.GPT,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        tied=tied,
        norm_eps=epsilon,
        name=name,
        layers=fields["layers"],
        ffn=fields["ffn"],
        vocab=fields["vocab"],
        positions=fields["positions"],
    )
    return ImportedModel(config)


def _read_rope(keys: _Keys) -> _Keys:
    """The rotary positions, as transformers 5 nests them; empty in files of older ones."""
    nested = keys.document.get("rope_parameters")
    if nested is not None and not isinstance(nested, dict):
        keys.fail("rope_parameters", "wrong value", nested, "an object")
        nested = None
    rope = _Keys(keys.source, cast(dict[str, object], nested or {}))
    rope.problems = keys.problems
    return rope


def _read_llama(keys: _Keys, name: str) -> ImportedModel:
    keys.only("hidden_act", ("silu",), "silu")
    keys.only("attention_bias", (False,), False)
    keys.only("mlp_bias", (False,), False)
    hidden, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    if "head_dim" not in keys.document and hidden % heads:
        keys.fail("num_attention_heads", "does not divide hidden_size", heads, f"a divisor of {hidden}")
    fields = {
        "layers": keys.integer("num_hidden_layers"),
        "kv_heads": keys.integer("num_key_value_heads", heads),
        "head_dim": keys.integer("head_dim", max(1, hidden // heads)),
        "ffn": keys.integer("intermediate_size"),
        "vocab": keys.integer("vocab_size"),
        "positions": keys.integer("max_position_embeddings"),
    }
    epsilon = keys.number("rms_norm_eps", 1e-6)
    rope = _read_rope(keys)
    theta = rope.number("rope_theta", keys.number("rope_theta", 10_000.0))
    tied = keys.flag("tie_word_embeddings", default=False)
    notes: tuple[str, ...] = ()
    scaled = [
        key
        for key, asked in (
            ("rope_scaling", keys.document.get("rope_scaling") is not None),
            ("rope_parameters", rope.document.get("rope_type", "default") != "default"),
        )
        if asked
    ]
    if scaled:
        what = f"{scaled[0]} is left out: no cost depends on it, but the C engine runs without it"
        notes = (f"{keys.source}: {what}",)
    _raise(keys)
    config = ModelConfig(
        kind=ModelKind.LLAMA,
        hidden=hidden,
        heads=heads,
        tied=tied,
        norm_eps=epsilon,
        rope_theta=theta,
        name=name,
        layers=fields["layers"],
        kv_heads=fields["kv_heads"],
        head_dim=fields["head_dim"],
        ffn=fields["ffn"],
        vocab=fields["vocab"],
        positions=fields["positions"],
    )
    return ImportedModel(config, notes)


_FAMILIES: dict[str, Callable[[_Keys, str], ImportedModel]] = {"gpt2": _read_gpt2, "llama": _read_llama}


def _raise(keys: _Keys) -> None:
    if len(keys.problems) == 1:
        raise keys.problems[0]
    if keys.problems:
        message = f"{keys.source}: cannot be read as a model: {len(keys.problems)} problems"
        raise InvalidInputError(message, problems=keys.problems)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in pairs:
        if key in out:
            raise InvalidInputError("the key stands twice", where=Place(field=key))
        out[key] = value
    return out


def read_huggingface_config(path: str | Path) -> ImportedModel:
    """Read the shape of a GPT-2 or Llama model.

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
    keys = _Keys(path, cast(dict[str, object], document))
    family = keys.document.get("model_type")
    read = _FAMILIES.get(family) if isinstance(family, str) else None
    if read is None:
        raise InvalidInputError(
            "unknown architecture",
            where=Place(path, field="model_type"),
            got=json.dumps(family),
            expected=" or ".join(_FAMILIES),
            hint="write the model's sizes into the scenario (model.kind, model.layers, ...)",
        )
    name = keys.document.get("_name_or_path") or path.parent.name or path.stem
    return read(keys, str(name))
