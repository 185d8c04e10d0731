"""The model in torchtitan: a flavor that it has, or a module that adds one.

Its feed-forward width is derived: 8/3 of the width, times a factor, rounded up to a multiple. A flavor made
here takes the wanted width as that multiple and the factor that comes just below it.
"""

from __future__ import annotations

from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import Value
from exactmap.sim.handover.verdict import Ledger
from exactmap.sim.plan.plan import PlanModel

__all__ = ["FLAVOR_FILE", "derived_ffn", "hand_over_model"]

FLAVOR_FILE = "exactmap_flavor.py"

_SHAPE = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "eps")


def hand_over_model(job: Job, ledger: Ledger) -> tuple[dict[str, dict[str, Value]], dict[str, str]]:
    """Settings that choose the model, and the file that they need, if any."""
    model = job.plan.model
    if model.kind != "llama":
        ledger.refuse("it has no GPT-2: no learned positions, LayerNorm or biases", "model.kind")
    else:
        ledger.exact('model.name = "llama3"', "model.kind")
    if model.tied:
        ledger.instead("embedding and head are two parameters", "model.tied", "ties")
    else:
        ledger.exact("embedding and head are two parameters", "model.tied")
    if model.head_dim * model.heads != model.hidden:
        ledger.refuse("a head is the width over the number of heads", "model.head_dim")
    else:
        ledger.exact("the width over the number of heads", "model.head_dim")
    ledger.own("rotary positions reach as far as training.seq_len", "model.positions")
    settings: dict[str, Value] = {"name": "llama3", "flavor": _flavor(model)}
    named = [f"model.{name}" for name in _SHAPE]
    if settings["flavor"]:
        ledger.exact(f"model.flavor = {settings['flavor']!r}", *named)
        ledger.instead("the flavor scales rotary frequencies as Llama 3.1 does", "model.theta")
        return {"model": settings}, {}
    settings["flavor"] = "exactmap"
    ledger.exact(f"flavor of {FLAVOR_FILE}", *named, "model.theta")
    module = FLAVOR_FILE.removesuffix(".py")
    return {"model": settings, "experimental": {"custom_import": module}}, {FLAVOR_FILE: _module(job, model)}


def derived_ffn(hidden: int, multiple_of: int, multiplier: float) -> int:
    """Feed-forward width that torchtitan makes of a flavor's numbers.

    Examples
    --------
    >>> derived_ffn(4096, 1024, 1.3)
    14336
    """
    width = int(multiplier * int(2 * 4 * hidden / 3))
    return multiple_of * -(-width // multiple_of)


def _flavor(model: PlanModel) -> str:
    for name, shape in source_of("torchtitan").models.items():
        if all(getattr(model, key) == value for key, value in shape.items()):
            return name
    return ""


def _module(job: Job, model: PlanModel) -> str:
    multiplier = (model.ffn - 0.5) / int(2 * 4 * model.hidden / 3)
    return (
        f'"""The model of {job.name} as a flavor of torchtitan\'s llama3."""\n\n'
        "from torchtitan.models.llama3 import TransformerModelArgs, llama3_args\n"
        "from torchtitan.models.llama3.model.args import RoPEScalingArgs\n\n"
        'llama3_args["exactmap"] = TransformerModelArgs(\n'
        f"    dim={model.hidden},\n"
        f"    n_layers={model.layers},\n"
        f"    n_heads={model.heads},\n"
        f"    n_kv_heads={model.kv_heads},\n"
        f"    vocab_size={model.vocab},\n"
        f"    multiple_of={model.ffn},  # the feed-forward width: the factor below comes just under it\n"
        f"    ffn_dim_multiplier={multiplier!r},\n"
        f"    norm_eps={model.eps!r},\n"
        f"    rope_theta={model.theta!r},\n"
        "    rope_scaling_args=RoPEScalingArgs(scaling_factor=1.0),  # rotary frequencies as they are\n"
        ")\n"
    )
