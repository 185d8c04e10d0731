"""Megatron's arguments for the model, the batch, the optimizer and the data types of a plan."""

from __future__ import annotations

from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.text import Value
from exactmap.sim.handover.verdict import Ledger

__all__ = ["model_arguments", "number_arguments", "training_arguments"]


def model_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Sizes and make of the model."""
    model = job.plan.model
    out: dict[str, Value] = {
        "--num-layers": model.layers,
        "--hidden-size": model.hidden,
        "--ffn-hidden-size": model.ffn,
        "--num-attention-heads": model.heads,
        "--kv-channels": model.head_dim,
        "--max-position-embeddings": model.positions,
        "--norm-epsilon": model.eps,
        "--vocab-size": model.vocab,
        "--make-vocab-size-divisible-by": 1,
        "--tokenizer-type": "NullTokenizer",
        "--attention-dropout": 0.0,
        "--hidden-dropout": 0.0,
    }
    if model.kv_heads != model.heads:
        out |= {"--group-query-attention": None, "--num-query-groups": model.kv_heads}
    if not model.tied:
        out["--untie-embeddings-and-output-weights"] = None
    ledger.exact("sizes of the same names", *(f"model.{name}" for name in _SIZES))
    ledger.exact("--norm-epsilon", "model.eps")
    ledger.exact(
        "shared embedding, summed over its two ranks" if model.tied else "--untie-..", "model.tied", "ties"
    )
    if model.kind == "llama":
        out |= {
            "--position-embedding-type": "rope",
            "--rotary-base": round(model.theta),
            "--normalization": "RMSNorm",
            "--swiglu": None,
            "--disable-bias-linear": None,
        }
        ledger.exact("--normalization RMSNorm, --swiglu, --disable-bias-linear", "model.kind")
        if model.theta == round(model.theta):
            ledger.exact("--rotary-base", "model.theta")
        else:
            ledger.instead(f"--rotary-base takes whole numbers: {round(model.theta)}", "model.theta")
    else:
        out |= {"--position-embedding-type": "learned_absolute", "--normalization": "LayerNorm"}
        ledger.exact("learned positions, LayerNorm, GELU, biases", "model.kind")
        ledger.own("of no use: positions are learned", "model.theta")
    tp = job.plan.mesh.tp
    if model.vocab % tp:
        padded = -(-model.vocab // tp) * tp
        ledger.instead(f"padded to {padded}, a multiple of tp", "model.vocab")
    else:
        ledger.exact("--vocab-size, not padded", "model.vocab")
    return out


_SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "positions")


def training_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Batch, optimizer and learning rate."""
    train, mesh = job.plan.train, job.plan.mesh
    out: dict[str, Value] = {
        "--micro-batch-size": train.microbatch,
        "--global-batch-size": train.microbatch * train.m * mesh.dp,
        "--seq-length": train.seq,
        "--train-iters": train.steps,
        "--optimizer": "adam",
        "--lr": train.lr,
        "--min-lr": train.lr_min,
        "--lr-decay-style": "cosine",
        "--lr-decay-iters": train.steps,
        "--lr-warmup-iters": train.warmup,
        "--adam-beta1": train.beta1,
        "--adam-beta2": train.beta2,
        "--adam-eps": train.eps,
        "--weight-decay": train.decay,
        "--clip-grad": train.clip,
        "--seed": max(1, train.seed),
    }
    ledger.exact("--micro-batch-size", "train.microbatch")
    ledger.exact("--global-batch-size over microbatch x dp", "train.m")
    ledger.exact("--seq-length", "train.seq")
    ledger.exact("--train-iters and --lr-decay-iters", "train.steps")
    ledger.exact("--optimizer adam, whose decay is decoupled", "train.optimizer")
    ledger.exact("--lr, --min-lr, --lr-decay-style cosine", "train.lr", "train.lr_min")
    ledger.exact("--adam-beta1, --adam-beta2, --adam-eps", "train.beta1", "train.beta2", "train.eps")
    ledger.exact("--weight-decay", "train.decay")
    ledger.exact("--clip-grad", "train.clip")
    ledger.own("--seed, at least 1, of random streams of its own", "train.seed")
    if train.warmup:
        ledger.instead(
            "--lr-warmup-iters, whose warm-up lags one step: step s gets lr s / warmup, the first one 0",
            "train.warmup",
        )
    else:
        ledger.exact("--lr-warmup-iters 0", "train.warmup")
    if train.slices > 1:
        ledger.instead("sequences stay whole: bubble and stash are those of 1F1B", "train.slices")
    else:
        ledger.exact("sequences stay whole", "train.slices")
    return out


def number_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Data types: of parameters, products, gradients, moments and messages."""
    kinds = job.plan.precision
    out: dict[str, Value] = {}
    base = kinds.act if kinds.act in {"bf16", "f16", "f32"} else "bf16"
    flag = {"bf16": "--bf16", "f16": "--fp16", "f32": ""}[base]
    if flag:
        out[flag] = None
    if kinds.act == "f8":
        out["--fp8-format"] = "hybrid"
        ledger.instead(
            "--fp8-format hybrid over --bf16: products of layers alone, by its own recipe", "precision.act"
        )
    elif kinds.act == "f4":
        out["--fp4-format"] = "e2m1"
        ledger.instead(
            "--fp4-format e2m1 over --bf16: products of layers alone, by its own recipe", "precision.act"
        )
    else:
        ledger.exact(flag or "float32 without a flag", "precision.act")
    if kinds.param == base:
        ledger.exact(f"{flag or 'float32'}, with a float32 copy where that is wider", "precision.param")
    else:
        ledger.instead(f"parameters are {base}, with a float32 copy where that is wider", "precision.param")
    if kinds.comm == base:
        ledger.exact("messages are of the parameters' type", "precision.comm")
    else:
        ledger.instead(f"messages are {base}", "precision.comm")
    _gradient_type(kinds.grad, base, out, ledger)
    _moment_type(kinds.moment, job, out, ledger)
    return out


def _gradient_type(grad: str, base: str, out: dict[str, Value], ledger: Ledger) -> None:
    if grad == "f32":
        if base != "f32":
            out["--accumulate-allreduce-grads-in-fp32"] = None
        ledger.exact("summed and reduced in float32", "precision.grad")
    elif grad == "bf16" and base == "bf16":
        out["--grad-reduce-in-bf16"] = None
        ledger.exact("--grad-reduce-in-bf16", "precision.grad")
    else:
        if base != "f32":
            out["--accumulate-allreduce-grads-in-fp32"] = None
        ledger.instead("gradients are float32", "precision.grad")


def _moment_type(moment: str, job: Job, out: dict[str, Value], ledger: Ledger) -> None:
    word = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "f8": "fp8"}.get(moment)
    is_sharded = any(bucket.shard for bucket in job.plan.buckets)
    if word == "fp32":
        ledger.exact("float32, as without an option", "precision.moment")
    elif word is not None and is_sharded:
        out |= {
            "--use-precision-aware-optimizer": None,
            "--exp-avg-dtype": word,
            "--exp-avg-sq-dtype": word,
        }
        ledger.exact("--exp-avg-dtype, --exp-avg-sq-dtype", "precision.moment")
    else:
        why = "only its distributed optimizer has others" if word else "it has no such type"
        ledger.instead(f"moments are float32: {why}", "precision.moment")
