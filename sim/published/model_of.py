"""The model that a row is about: its columns, and what its family has beside them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, cast

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.published.cells import flag_number, integer, number, optional_integer
from exactmap.sim.published.row import Row
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind, StateSpace

__all__ = ["family_of", "model_of"]

_VOCAB = {ModelKind.GPT: 51200, ModelKind.LLAMA: 128256}
_MOST_LAYERS = 10_000
"""Each is looked at by itself; no model has a tenth of that."""
_HYBRID_ATTENTION = 0.08
"""Share of attention layers in hybrid models of no known pattern: Nemotron-H's (arXiv:2504.03624)."""


@cache
def _families() -> tuple[dict[str, Any], ...]:
    text = files("exactmap.sim.published").joinpath("data", "families.json").read_text(encoding="utf-8")
    return tuple(cast(list[dict[str, Any]], json.loads(text)["families"]))


def family_of(name: str) -> dict[str, Any]:
    """What is known of a model's family by its name; empty if nothing is."""
    name = name.strip().lower()
    return next((entry for entry in _families() if name.startswith(entry["prefix"])), {})


class _Filled:
    """A row whose empty cells a family may fill."""

    def __init__(self, row: Row, fill: dict[str, int], assumed: list[str]) -> None:
        self.row, self.fill, self.assumed = row, fill, assumed

    def integer(self, column: str, default: int | None = None, *, least: int = 1) -> int:
        if not self.row[column] and column in self.fill:
            self.assumed.append(f"{column}={self.fill[column]}")
            return self.fill[column]
        return integer(self.row, column, default, least=least)


def model_of(row: Row, assumed: list[str]) -> ModelConfig:
    """Read the model of a row; what its columns leave out is noted in `assumed`.

    Raises
    ------
    InvalidInputError
        If a size is missing that nothing stands in for, or sizes contradict each other.
    """
    name = row["model"].lower()
    family = family_of(name)
    cells = _Filled(row, cast(dict[str, int], family.get("fill", {})), assumed)
    layers, hidden, heads = (cells.integer(column) for column in ("layers", "hidden", "heads"))
    if layers > _MOST_LAYERS:
        raise InvalidInputError(
            "too many layers",
            where=Place(field="layers"),
            got=str(layers),
            expected=f"at most {_MOST_LAYERS}",
        )
    kind = ModelKind(family.get("kind", "llama"))
    latent = _latent(row, family)
    head_dim = latent.v_dim if latent else cells.integer("head_dim", max(1, hidden // heads))
    experts = _experts(row, cells, family)
    ffn = cells.integer("ffn", experts.ffn if experts else 4 * hidden)
    vocab = cells.integer("vocab", 0)
    if not vocab:
        vocab = _VOCAB[kind]
        assumed.append(f"vocab={vocab}")
    arch = row["arch"]
    state_space = StateSpace(*family["state_space"]) if "state_space" in family else None
    pattern = ""
    if arch.startswith("hybrid") or state_space:
        state_space = state_space or StateSpace(max(1, 2 * hidden // 64), 64, 128, 8)
        pattern = _pattern(layers, family, "E" if experts else "-", assumed)
    gated = family.get("gated")
    if gated is None and not family:
        gated = _is_gated(row, kind, hidden, ffn, layers, heads, head_dim, vocab, experts)
        assumed.append("mlp=" + ("gated" if gated else "two matrices"))
    window = cast(int, family.get("window", 0))
    mtp = flag_number(row, "mtp")
    return ModelConfig(
        kind,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads if latent else cells.integer("kv_heads", heads),
        head_dim=head_dim,
        ffn=ffn,
        vocab=vocab,
        positions=max(integer(row, "seq_len"), 1),
        tied=bool(family.get("tied", False)),
        name=name,
        gated=gated,
        latent=latent,
        experts=experts,
        window=window,
        window_every=cast(int, family.get("window_every", 0)),
        clamped=bool(family.get("clamped", False)),
        state_space=state_space,
        pattern=pattern,
        mtp_layers=cast(int, family.get("mtp_layers", 0)) if mtp is None else mtp,
        mtp_pattern=cast(str, family.get("mtp_pattern", "")),
        mtp_repeated=bool(family.get("mtp_pattern")),
    )


def _latent(row: Row, family: dict[str, Any]) -> LatentAttention | None:
    if row["head_dim"].upper() == "MLA" or (not row["head_dim"] and "latent" in family):
        return LatentAttention(*family.get("latent", (1536, 512, 128, 64, 128)))
    return None


def _experts(row: Row, cells: _Filled, family: dict[str, Any]) -> Experts | None:
    if not row["n_experts"] and "n_experts" not in cells.fill:
        if "moe" in row["arch"]:
            raise InvalidInputError(
                "a mixture of experts without their number", where=Place(field="n_experts")
            )
        return None
    num_experts, top_k = cells.integer("n_experts"), cells.integer("top_k")
    if top_k > num_experts:
        raise InvalidInputError(
            "more experts for a token than there are", where=Place(field="top_k"), got=str(top_k)
        )
    ffn = cells.integer("moe_ffn")
    shared = cells.integer("shared_experts", 0, least=0)
    first_dense = flag_number(row, "first_dense")
    return Experts(
        num_experts,
        top_k,
        ffn,
        shared_ffn=cast(int, family.get("shared_ffn", shared * ffn)) if shared else 0,
        first_dense=cast(int, family.get("first_dense", 0)) if first_dense is None else first_dense,
        every=cast(int, family.get("every", 1)),
        latent=cast(int, family.get("expert_latent", 0)),
        most_hosts=cast(int, family.get("most_hosts", 0)),
    )


def _pattern(layers: int, family: dict[str, Any], mlp: str, assumed: list[str]) -> str:
    """State-space, attention and MLP layers spread evenly, in the shares of the family."""
    counts = family.get("mixers")
    if counts is None or sum(counts) != layers:
        attention = max(1, round(layers * _HYBRID_ATTENTION))
        space = (layers - attention + 1) // 2
        counts = [space, attention, layers - attention - space]
        assumed.append("pattern={}M {}* {}{}".format(*counts, mlp))
    due = [0.0, 0.0, 0.0]
    out: list[str] = []
    for _ in range(layers):
        due = [have + count / layers for have, count in zip(due, counts, strict=True)]
        pick = due.index(max(due))
        due[pick] -= 1.0
        out.append(("M", "*", mlp)[pick])
    return "".join(out)


def _is_gated(
    row: Row,
    kind: ModelKind,
    hidden: int,
    ffn: int,
    layers: int,
    heads: int,
    head_dim: int,
    vocab: int,
    experts: Experts | None,
) -> bool:
    """Two matrices or three: whichever comes nearer to the stated parameters, else by the inner width."""
    if not row["params_b"]:
        return ffn != 4 * hidden
    stated = number(row, "params_b") * 1e9
    kv = optional_integer(row, "kv_heads") or heads
    attention = hidden * head_dim * (2 * heads + 2 * kv)
    inner = experts.num_experts * experts.ffn + experts.shared_ffn if experts else ffn
    totals = {
        matrices: layers * (attention + matrices * hidden * inner) + vocab * hidden for matrices in (2, 3)
    }
    del kind
    return min(totals, key=lambda matrices: abs(totals[matrices] - stated)) == 3
