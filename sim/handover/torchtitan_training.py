"""torchtitan's settings for batch, optimizer, data types and the mesh."""

from __future__ import annotations

from exactmap.sim.handover.axis_order import say_numbering
from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.text import Value
from exactmap.sim.handover.verdict import Ledger

__all__ = ["parallel_numbers", "training_numbers"]


def training_numbers(job: Job, ledger: Ledger) -> dict[str, dict[str, Value]]:
    """Sections training, optimizer, lr_scheduler and debug."""
    train, mesh = job.plan.train, job.plan.mesh
    training: dict[str, Value] = {
        "seq_len": train.seq,
        "local_batch_size": train.microbatch * (train.m if mesh.pp > 1 else 1),
        "global_batch_size": train.microbatch * train.m * mesh.dp,
        "steps": train.steps,
        "max_norm": train.clip or float("inf"),
    }
    multiple = mesh.tp * 2 * mesh.cp
    if (mesh.cp > 1 or mesh.tp > 1) and train.seq % multiple:
        ledger.refuse(f"a sequence is a multiple of 2 tp cp = {multiple}", "train.seq")
    else:
        ledger.exact("training.seq_len", "train.seq")
    ledger.exact("training.local_batch_size and global_batch_size", "train.m")
    ledger.exact(
        "pipeline_parallel_microbatch_size, or local_batch_size without a pipeline", "train.microbatch"
    )
    ledger.exact("training.steps", "train.steps")
    ledger.exact("training.max_norm", "train.clip")
    if train.slices > 1:
        ledger.instead("sequences stay whole: bubble and stash are those of 1F1B", "train.slices")
    else:
        ledger.exact("sequences stay whole", "train.slices")
    ledger.exact('optimizer.name = "AdamW"', "train.optimizer")
    ledger.exact("optimizer: lr, beta1, beta2, eps", "train.lr", "train.beta1", "train.beta2", "train.eps")
    if train.decay:
        ledger.instead("optimizer.weight_decay, on gains of norms, too", "train.decay")
    else:
        ledger.exact("optimizer.weight_decay = 0", "train.decay")
    ledger.exact("lr_scheduler: min_lr_factor, cosine", "train.lr_min")
    ledger.exact("lr_scheduler.warmup_steps", "train.warmup")
    ledger.own("debug.seed, of random streams of its own", "train.seed")
    out: dict[str, dict[str, Value]] = {
        "training": training | _types(job, ledger),
        "optimizer": {
            "name": "AdamW",
            "lr": train.lr,
            "beta1": train.beta1,
            "beta2": train.beta2,
            "eps": train.eps,
            "weight_decay": train.decay,
        },
        "lr_scheduler": {
            "warmup_steps": train.warmup,
            "decay_type": "cosine",
            "min_lr_factor": train.lr_min / train.lr if train.lr else 1.0,
        },
        "debug": {"seed": train.seed},
    }
    if job.plan.clock == "free":
        ledger.instead("every step ends with a norm over all ranks", "clock", "passes.late_norm")
    else:
        ledger.exact("every step ends with a norm over all ranks", "clock")
    ledger.instead("all replicas run alike", "maps")
    return out


def _types(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Without FSDP nothing is of mixed precision but on a single device: then all is of one type."""
    kinds, mesh = job.plan.precision, job.plan.mesh
    base = "float32" if kinds.act == "f32" else "bfloat16"
    is_fsdp = mesh.dp * mesh.cp > 1
    rest = "float32" if is_fsdp or base == "float32" or mesh.pp * mesh.tp == 1 else "bfloat16"
    if kinds.act in {"f32", "bf16"}:
        ledger.exact(f"products in {base}", "precision.act")
    else:
        ledger.instead(f"products in {base}; a converter of its own may go lower", "precision.act")
    word = "f32" if base == "float32" else "bf16"
    if kinds.param == word:
        ledger.exact(
            f"training.mixed_precision_param, kept as {rest} at rest"
            if is_fsdp
            else f"training.dtype = {rest}",
            "precision.param",
        )
    else:
        ledger.instead(f"{base}, kept as {rest} at rest", "precision.param")
    if kinds.comm == word:
        ledger.exact("messages are of the products' type", "precision.comm")
    else:
        ledger.instead(f"messages are {base}", "precision.comm")
    for name, kind in (("precision.grad", kinds.grad), ("precision.moment", kinds.moment)):
        if (kind == "f32") == (rest == "float32") and kind in {"f32", "bf16"}:
            ledger.exact(rest, name)
        else:
            ledger.instead(f"{rest}, as parameters at rest", name)
    return {"dtype": rest, "mixed_precision_param": base, "mixed_precision_reduce": "float32"}


def parallel_numbers(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Degrees of the axes; replicas share parameters: it copies them only where nothing else is parallel."""
    mesh = job.plan.mesh
    sharded = any(bucket.shard for bucket in job.plan.buckets)
    copied = mesh.dp > 1 and not sharded and mesh.tp * mesh.cp * mesh.pp == 1
    ledger.exact("tensor_parallel_degree, with sequence parallelism", "mesh.tp")
    ledger.exact("context_parallel_degree", "mesh.cp")
    ledger.exact("pipeline_parallel_degree", "mesh.pp")
    ledger.own("reduced layer by layer or stage by stage", "buckets")
    ledger.exact("data_parallel_shard_degree, gathered once (never resharded)", "buckets.shard")
    if mesh.dp > 1 and not sharded and not copied:
        ledger.instead(
            "data_parallel_shard_degree: parameters rest cut over replicas (FSDP), since plain replicas run "
            "beside no other axis",
            "mesh.dp",
        )
    else:
        ledger.exact("data_parallel_replicate_degree" if copied else "data_parallel_shard_degree", "mesh.dp")
    if mesh.ep > 1:
        ledger.refuse("the plan's model has no experts to spread", "mesh.ep")
    else:
        ledger.exact("no expert parallelism", "mesh.ep")
    say_numbering(ledger, mesh, ("tp", "cp", "ep", "dp", "pp"), "ranks")
    return {
        "data_parallel_replicate_degree": mesh.dp if copied else 1,
        "data_parallel_shard_degree": 1 if copied else mesh.dp,
        "fsdp_reshard_after_forward": "never",
        "tensor_parallel_degree": mesh.tp,
        "context_parallel_degree": mesh.cp,
        "pipeline_parallel_degree": mesh.pp,
    }
