"""What is wrong with a model's sizes, each problem under its field; nothing is refused here."""

from __future__ import annotations

from collections.abc import Iterator

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.blocks import Experts, LatentAttention, StateSpace
from exactmap.sim.workload.kinds import PATTERN, Mlp, ModelKind
from exactmap.sim.workload.shape import ModelShape

__all__ = ["find_problems"]

_SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "positions", "vocab_multiple")
_COUNTS = ("window", "window_every", "mtp_layers")


def find_problems(model: ModelShape) -> list[InvalidInputError]:
    """All problems of a model, in the order of its fields."""
    problems = list(_check_sizes(model))
    if model.latent is not None:
        problems += _check_latent(model.latent)
    if model.experts is not None:
        problems += _check_experts(model.experts)
    if model.state_space is not None:
        problems += _check_state_space(model.state_space)
    problems += _check_window(model)
    problems += _check_pattern(model)
    if not problems and model.experts is not None:
        problems += _check_use_of_experts(model)
    return problems


def _problem(field: str, what: str, got: object, expected: str | None = None) -> InvalidInputError:
    return InvalidInputError(what, where=Place(field=f"model.{field}"), got=str(got), expected=expected)


def _at_least(owner: object, prefix: str, fields: tuple[str, ...], least: int) -> Iterator[InvalidInputError]:
    for field in fields:
        value: int = getattr(owner, field)
        if value < least:
            what = "size must be positive" if least else "count must not be negative"
            yield _problem(prefix + field, what, value, f"at least {least}")


def _check_sizes(model: ModelShape) -> Iterator[InvalidInputError]:
    yield from _at_least(model, "", _SIZES, 1)
    yield from _at_least(model, "", _COUNTS, 0)
    if model.kv_heads >= 1 and model.heads % model.kv_heads:
        what = "key/value heads do not divide the query heads"
        yield _problem("kv_heads", what, model.kv_heads, f"a divisor of {model.heads}")
    if model.kind is ModelKind.LLAMA and model.head_dim % 2:
        what = "rotary positions turn pairs of channels"
        yield _problem("head_dim", what, model.head_dim, "an even number")
    if not model.norm_eps > 0.0:
        yield _problem("norm_eps", "epsilon must be positive", repr(model.norm_eps))
    if not model.rope_theta > 0.0:
        yield _problem("rope_theta", "rotary base must be positive", repr(model.rope_theta))


def _check_latent(latent: LatentAttention) -> Iterator[InvalidInputError]:
    yield from _at_least(latent, "latent.", ("kv_rank", "v_dim"), 1)
    yield from _at_least(latent, "latent.", ("q_rank", "nope_dim", "rope_dim"), 0)
    if latent.nope_dim == latent.rope_dim == 0:
        yield _problem("latent.nope_dim", "queries and keys have no channels", 0, "at least 1 with rope_dim")
    if latent.rope_dim % 2:
        what = "rotary positions turn pairs of channels"
        yield _problem("latent.rope_dim", what, latent.rope_dim, "an even number")


def _check_experts(experts: Experts) -> Iterator[InvalidInputError]:
    yield from _at_least(experts, "experts.", ("num_experts", "top_k", "ffn", "every"), 1)
    yield from _at_least(experts, "experts.", ("shared_ffn", "first_dense", "latent", "most_hosts"), 0)
    if experts.top_k > experts.num_experts >= 1:
        what = "a token visits more experts than there are"
        yield _problem("experts.top_k", what, experts.top_k, f"at most {experts.num_experts}")


def _check_state_space(space: StateSpace) -> Iterator[InvalidInputError]:
    yield from _at_least(space, "state_space.", ("heads", "head_dim", "state", "groups", "conv"), 1)
    if space.groups >= 1 and space.heads % space.groups:
        what = "groups do not divide the heads"
        yield _problem("state_space.groups", what, space.groups, f"a divisor of {space.heads}")


def _check_window(model: ModelShape) -> Iterator[InvalidInputError]:
    if model.window_every > 0 and not model.window:
        what = "a share of layers without a window has no window to be without"
        yield _problem("window_every", what, model.window_every, "0, or a model.window")
    if model.window_every == 1 and model.window:
        yield _problem("window_every", "no layer has the window", 1, "0 (all layers have it) or at least 2")


def _check_pattern(model: ModelShape) -> Iterator[InvalidInputError]:
    pattern, all_letters = model.pattern, model.pattern + model.mtp_pattern
    for field, letters in (("pattern", pattern), ("mtp_pattern", model.mtp_pattern)):
        unknown = sorted(set(letters) - PATTERN.keys())
        if unknown:
            expected = "M (state space), * (attention), - (dense MLP), E (experts)"
            yield _problem(field, "unknown letters", " ".join(unknown), expected)
    if pattern and len(pattern) != model.layers:
        yield _problem("pattern", "not a letter for each layer", len(pattern), f"{model.layers} letters")
    if ("M" in all_letters) is not (model.state_space is not None):
        if "M" in all_letters:
            yield _problem("state_space", "the pattern has layers of this kind", "none", "their sizes")
        else:
            yield _problem("pattern", "no layer uses model.state_space", repr(pattern), "at least one M")
    if "E" in all_letters and model.experts is None:
        yield _problem("experts", "the pattern has layers of this kind", "none", "their sizes")
    if pattern and model.window:
        yield _problem("window", "attention layers of a pattern see the whole sequence", model.window, "0")


def _check_use_of_experts(model: ModelShape) -> Iterator[InvalidInputError]:
    experts = model.experts
    assert experts is not None, "asked only where there are experts"
    if model.pattern and (experts.first_dense or experts.every > 1):
        field = "first_dense" if experts.first_dense else "every"
        got = getattr(experts, field)
        yield _problem(f"experts.{field}", "the pattern says which layers have experts", got)
    elif all(kind.mlp is not Mlp.EXPERTS for kind in model.layer_kinds()):
        expected = (
            "an E in model.pattern" if model.pattern else "fewer first_dense layers, or a smaller every"
        )
        yield _problem("experts", "no layer has experts", f"{model.layers} layers", expected)
