"""MaxText's settings for the model, the mesh, the pipeline and the training numbers of a plan."""

from __future__ import annotations

from exactmap.sim.handover.axis_order import say_numbering
from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.text import Value
from exactmap.sim.handover.verdict import Ledger

__all__ = ["mesh_settings", "model_settings", "pipeline_settings", "training_settings"]

_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def model_settings(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Sizes and make of the model."""
    model = job.plan.model
    is_llama = model.kind == "llama"
    out: dict[str, Value] = {
        "model_name": "default",
        "decoder_block": "llama2" if is_llama else "gpt3",
        "base_num_decoder_layers": model.layers,
        "base_emb_dim": model.hidden,
        "base_num_query_heads": model.heads,
        "base_num_kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "base_mlp_dim": model.ffn,
        "vocab_size": model.vocab,
        "normalization_layer_epsilon": model.eps,
        "logits_via_embedding": model.tied,
        "enable_dropout": False,
        "mlp_activations": ["silu", "linear"] if is_llama else ["gelu"],
    }
    sizes = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "eps")
    ledger.exact("sizes as base_* and of the same names", *(f"model.{name}" for name in sizes))
    ledger.exact(f"decoder_block={out['decoder_block']}", "model.kind")
    ledger.exact(f"logits_via_embedding={str(model.tied).lower()}", "model.tied", "ties")
    if is_llama:
        ledger.own("rotary positions reach as far as max_target_length", "model.positions")
        if model.theta == round(model.theta):
            ledger.exact("rope_max_timescale", "model.theta")
        else:
            ledger.instead(f"rope_max_timescale takes whole numbers: {round(model.theta)}", "model.theta")
        return out | {"rope_max_timescale": round(model.theta)}
    ledger.exact("trainable_position_size", "model.positions")
    ledger.own("of no use: positions are learned", "model.theta")
    out |= {"trainable_position_size": model.positions, "normalize_embedding_logits": False}
    return out


def mesh_settings(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Sizes of the axes. On GPUs there is one slice, so all axes are ``ici``."""
    mesh = job.plan.mesh
    ledger.exact("ici_tensor_parallelism", "mesh.tp")
    ledger.exact("ici_context_parallelism", "mesh.cp")
    ledger.exact("ici_pipeline_parallelism", "mesh.pp")
    ledger.exact("ici_data_parallelism", "mesh.dp")
    ledger.own("reduced where the compiler puts it", "buckets")
    sharded = any(bucket.shard for bucket in job.plan.buckets)
    ledger.exact("shard_optimizer_over_data=true", "buckets.shard")
    if mesh.ep > 1:
        ledger.refuse("the plan's model has no experts to spread", "mesh.ep")
    else:
        ledger.exact("ici_expert_parallelism=1", "mesh.ep")
    say_numbering(ledger, mesh, ("ep", "tp", "cp", "pp", "dp"), "devices")
    ledger.instead("all replicas run alike", "maps")
    return {
        "hardware": "gpu",
        "ici_tensor_parallelism": mesh.tp,
        "ici_context_parallelism": mesh.cp,
        "ici_expert_parallelism": 1,
        "ici_pipeline_parallelism": mesh.pp,
        "ici_data_parallelism": mesh.dp,
        "ici_fsdp_parallelism": 1,
        "dcn_data_parallelism": 1,
        "dcn_pipeline_parallelism": 1,
        "shard_optimizer_over_data": sharded,
    }


def pipeline_settings(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Layers of the stages, rounds through them, microbatches, recomputation."""
    order = job.order
    ledger.instead("both gradients at once: nothing fills the bubble", "passes.split")
    ledger.instead("passes one after the other", "passes.braids")
    ledger.own("the compiler places traffic inside passes", "stages.parts")
    ledger.instead("stashes stay on the GPU: the memory that this takes must be there", "passes.offloaded")
    out: dict[str, Value] = {"remat_policy": "full" if order.recomputed else "minimal_with_context"}
    if 0 < order.recomputed < order.num_items:
        ledger.instead("remat_policy=full: every microbatch, F more for each", "passes.recomputed")
    else:
        ledger.exact("remat_policy=full", "passes.recomputed")
    if job.plan.mesh.pp == 1:
        ledger.exact("one rank holds all layers", "stages.layers")
        ledger.exact("one rank", "place")
        ledger.instead("gradient_accumulation_steps: F and B in turn, as one loop", "passes.order")
        return out | {"gradient_accumulation_steps": job.plan.train.m}
    out |= _stages(job, ledger)
    return out | _microbatches(job, ledger)


def _stages(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Equal stages, as many rounds through the ranks as a rank holds chunks."""
    plan, order = job.plan, job.order
    pp, layers = plan.mesh.pp, plan.model.layers
    chunks = order.num_chunks
    if order.placement == "two":
        ledger.refuse("a stage has one rank", "place")
        chunks = 1
    elif not chunks:
        ledger.refuse("all ranks hold equally many stages", "place")
        chunks = 1
    elif order.placement == "loop":
        ledger.exact("stages go round the ranks", "place")
    else:
        ledger.instead("stages go round the ranks", "place")
    each, left = divmod(layers, pp * chunks)
    if not each:
        ledger.refuse(f"every one of {pp * chunks} stages has a layer", "stages.layers")
        return {}
    words = f"{each} layers a stage; embedding and head outside the pipeline, on all ranks"
    if left:
        words += f"; {left} layers outside, too, with the stage axis as one more axis of data"
    ledger.instead(words, "stages.layers")
    return {
        "num_layers_per_pipeline_stage": each,
        "num_pipeline_repeats": chunks,
        "pipeline_parallel_layers": layers - left,
    }


def _microbatches(job: Job, ledger: Ledger) -> dict[str, Value]:
    """A multiple of the ranks that divides the batch; the plan's number, if it is one."""
    pp, train = job.plan.mesh.pp, job.plan.train
    sequences = train.m * train.microbatch
    fitting = [number for number in range(pp, sequences + 1, pp) if sequences % number == 0]
    if not fitting:
        ledger.refuse(f"no multiple of {pp} microbatches divides {sequences} sequences", "passes.order")
        return {}
    number = train.m if train.m in fitting else min(fitting, key=lambda each: (abs(each - train.m), each))
    words = "" if number == train.m else f"{number} microbatches of {sequences // number} sequences: "
    ledger.instead(
        f"{words}all forward passes, then all backward passes, microbatches last to first", "passes.order"
    )
    return {"num_pipeline_microbatches": number}


def training_settings(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Batch, optimizer, learning rate, data types."""
    plan = job.plan
    train, kinds = plan.train, plan.precision
    ledger.exact("per_device_batch_size x devices / microbatches", "train.microbatch", "train.m")
    ledger.exact("max_target_length", "train.seq")
    ledger.exact("steps", "train.steps")
    if train.slices > 1:
        ledger.instead("sequences stay whole", "train.slices")
    else:
        ledger.exact("sequences stay whole", "train.slices")
    ledger.exact("opt_type=adamw", "train.optimizer")
    ledger.exact("learning_rate, learning_rate_final_fraction, cosine", "train.lr", "train.lr_min")
    ledger.exact("adam_b1, adam_b2, adam_eps", "train.beta1", "train.beta2", "train.eps")
    if train.decay:
        ledger.instead("adam_weight_decay, on gains of norms and biases, too", "train.decay")
    else:
        ledger.exact("adam_weight_decay=0", "train.decay")
    ledger.exact("gradient_clipping_threshold", "train.clip")
    ledger.own("init_weights_seed and data_shuffle_seed, of random streams of its own", "train.seed")
    if train.warmup:
        ledger.instead("warm-up lags one step: step s gets lr s / warmup, the first one 0", "train.warmup")
    else:
        ledger.exact("warmup_steps_fraction=0", "train.warmup")
    if plan.clock == "free":
        ledger.instead("every step ends with a norm over all ranks", "clock", "passes.late_norm")
    else:
        ledger.exact("every step ends with a norm over all ranks", "clock")
    out: dict[str, Value] = {
        "per_device_batch_size": train.microbatch * train.m * plan.mesh.dp / job.num_ranks,
        "max_target_length": train.seq,
        "steps": train.steps,
        "opt_type": "adamw",
        "learning_rate": train.lr,
        "lr_schedule_type": "cosine",
        "learning_rate_final_fraction": train.lr_min / train.lr if train.lr else 1.0,
        "learning_rate_schedule_steps": train.steps,
        "warmup_steps_fraction": train.warmup / train.steps,
        "adam_b1": train.beta1,
        "adam_b2": train.beta2,
        "adam_eps": train.eps,
        "adam_weight_decay": train.decay,
        "gradient_clipping_threshold": train.clip,
        "init_weights_seed": train.seed,
        "data_shuffle_seed": train.seed,
    }
    for key, name, kind in (
        ("weight_dtype", "precision.param", kinds.param),
        ("dtype", "precision.act", kinds.act),
        ("grad_dtype", "precision.grad", kinds.grad),
        ("mu_dtype", "precision.moment", kinds.moment),
    ):
        if kind in _TYPES:
            ledger.exact(key, name)
        else:
            ledger.instead(f"{key}=bfloat16; its quantization may go lower", name)
        out[key] = _TYPES.get(kind, "bfloat16")
    if kinds.comm == kinds.act:
        ledger.exact("messages are of dtype", "precision.comm")
    else:
        ledger.instead("messages are of dtype", "precision.comm")
    return out
