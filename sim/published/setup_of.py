"""From a row to a training setup: what its words mean, what is taken where it says nothing, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.row import Row
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, ModelKind
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split
from exactmap.topology.hardware import Cluster

__all__ = ["setup_of"]

_CLUSTERS = {
    ("A100-40G", 8): "a100-40g-8",
    ("A100-80G", 8): "a100-8",
    ("H100", 8): "h100-8",
    ("H200", 8): "h200-8",
    ("H800", 8): "h800-8",
    ("B200", 8): "b200-8",
    ("B300", 8): "b300-8",
    ("GB200", 72): "gb200-nvl72",
    ("GB300", 72): "gb300-nvl72",
}


def _integer(row: Row, column: str, default: int | None = None) -> int:
    text = row[column]
    if not text:
        if default is None:
            raise InvalidInputError(
                "a field without which no price exists", where=Place(field=column), got="nothing"
            )
        return default
    return int(float(text))


@cache
def _cluster(gpu: str, domain: int, num_gpus: int, nic_gbps: int) -> Cluster:
    name = _CLUSTERS.get((gpu, domain)) or _CLUSTERS.get((gpu, 8)) or _CLUSTERS.get((gpu, 72))
    if name is None:
        raise InvalidInputError(
            "no such GPU", where=Place(field="gpu"), got=gpu, expected=", ".join(k for k, _ in _CLUSTERS)
        )
    cluster = load_cluster(name)
    per_host = cluster.gpus_per_host
    rounded = -(-num_gpus // per_host) * per_host
    scale_out = (
        cluster.scale_out if not nic_gbps else replace(cluster.scale_out, bytes_per_s=nic_gbps * 125_000_000)
    )
    used = min(domain, 64) if domain == 72 else domain
    return replace(cluster, num_gpus=max(rounded, domain), scale_out=scale_out, used_per_domain=used)


def _model(row: Row, assumed: list[str]) -> ModelConfig:
    name = row["model"]
    latent = LatentAttention(1536, 512, 128, 64, 128) if row["head_dim"] == "MLA" else None
    hidden, heads = _integer(row, "hidden"), _integer(row, "heads")
    head_dim = 128 if latent else _integer(row, "head_dim", hidden // heads)
    kind = (
        ModelKind.GPT
        if name.startswith(("gpt", "mpt", "bloom", "opt", "nemotron4")) and "oss" not in name
        else ModelKind.LLAMA
    )
    experts = None
    if row["n_experts"]:
        moe_ffn = _integer(row, "moe_ffn")
        experts = Experts(
            _integer(row, "n_experts"),
            _integer(row, "top_k"),
            moe_ffn,
            shared_ffn=_integer(row, "shared_experts", 0) * moe_ffn,
            first_dense=3 if name.startswith("deepseek-v3") else 1 if latent else 0,
        )
    vocab = _integer(row, "vocab", 0)
    if not vocab:
        vocab = 51200
        assumed.append("vocab=51200")
    return ModelConfig(
        kind,
        layers=_integer(row, "layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_integer(row, "kv_heads", heads),
        head_dim=head_dim,
        ffn=_integer(row, "ffn", 4 * hidden),
        vocab=vocab,
        positions=_integer(row, "seq_len"),
        tied=kind is ModelKind.GPT,
        name=name,
        latent=latent,
        experts=experts,
        mtp_layers=1 if name.startswith("deepseek-v3") else 0,
    )


def _precision(row: Row) -> Precision:
    text = row["precision"].upper()
    if text.startswith(("FP8", "MXFP8")):
        scaling = "mx" if "MX" in text else "block" if "BLOCK" in text else "tensor"
        return Precision("fp8", "fp8", scaling)
    if text.startswith(("NVFP4", "FP4")):
        return Precision("fp4", "fp4", "nv")
    if text.startswith("FP16"):
        return Precision("fp16", "fp16", grad_bytes=2, reduce_bytes=2)
    if "AMP" in text:
        return Precision(
            "bf16", "bf16", param_bytes=4, grad_bytes=4, reduce_bytes=2, master_bytes=0, autocast=True
        )
    if "PURE" in text:
        return Precision("bf16", "bf16", grad_bytes=2, reduce_bytes=2, master_bytes=0, moment_bytes=2)
    return Precision()


def _recompute(row: Row) -> Recompute:
    text = row["recompute"]
    if text.startswith("full"):
        return Recompute("full")
    if "core" in text and text.startswith("selective"):
        return Recompute("modules", frozenset({"core_attn"}))
    if text.startswith("modules:"):
        return Recompute("modules", frozenset(text.removeprefix("modules:").split("+")))
    return Recompute()


_FAMILIES = (
    ("Megatron-DeepSpeed", "megatron-deepspeed"),
    ("Megatron-Bridge", "megatron-bridge"),
    ("NeMo", "nemo"),
    ("LLM-Foundry", "composer"),
    ("torchtitan", "torchtitan"),
    ("MaxText", "jax"),
    ("PaxML", "jax"),
    ("Megatron-LM", "megatron"),
    ("DeepSpeed", "deepspeed"),
    ("llm.c", "llm.c"),
    ("DeepSeek", "hai-llm"),
)


def _software(row: Row) -> Software:
    framework, flags = row["framework"], row["flags"]
    family = next((name for start, name in _FAMILIES if framework.startswith(start)), "megatron")
    old = family == "megatron-deepspeed" or (family == "megatron" and row["gpu"].startswith("A100"))
    default = family in ("nemo", "megatron-bridge", "torchtitan", "composer", "jax")
    return Software(
        family,
        row["release"],
        fused_attention=not old,
        compiled="compile" in flags or family == "jax",
        overlap_grad="overlap_grad" in flags or default,
        overlap_param="overlap_param" in flags or default,
        overlap_tp=bool({"tp_comm_overlap", "async_tp"} & set(flags.split())),
        overlap_p2p=_integer(row, "vpp", 1) > 1
        and (
            "p2p_overlap" in flags.split()
            or (family in ("nemo", "megatron-bridge") and "no_p2p_overlap" not in flags)
        ),
        overlap_ep="ep_a2a_overlap" in flags,
        cuda_graphs=frozenset({"some"}) if "cuda_graph" in flags else frozenset(),
        balanced="balanced" in flags,
        flags=frozenset(flags.split()),
    )


def setup_of(row: Row) -> TrainingSetup:
    """Read a row; what it leaves out is named in `TrainingSetup.assumed`.

    Raises
    ------
    InvalidInputError
        If a field is missing without which no price exists, or the fields contradict each other.
    """
    assumed: list[str] = []
    model = _model(row, assumed)
    gpus = _integer(row, "n_gpus")
    tp, pp, cp = (_integer(row, axis, 1) for axis in ("tp", "pp", "cp"))
    dp = _integer(row, "dp", gpus // (tp * pp * cp))
    seq = _integer(row, "seq_len")
    gbs = _integer(row, "gbs")
    microbatch = _integer(row, "mbs", 1)
    family = _software(row)
    fsdp = row["fsdp"]
    sharded = fsdp.isdigit() and int(fsdp) > 1
    zero = (
        3
        if sharded or "ZeRO-3" in row["framework"] + fsdp
        else 1
        if row["dist_opt"] == "1" or "ZeRO-1" in fsdp
        else 0
    )
    split = Split(
        tp=tp,
        cp=cp,
        pp=pp,
        dp=dp,
        ep=_integer(row, "ep", 1),
        etp=4 if "etp=4" in row["flags"] else 1,
        chunks=_integer(row, "vpp", 1),
        sequence_parallel=row["seq_par"] == "1" and tp > 1,
        zero=zero,
        shards=int(fsdp) if fsdp.isdigit() else 0,
    )
    batch = Batch(seq, microbatch, max(1, gbs // (dp * microbatch)))
    nic = _integer(row, "nic_gbps_per_gpu", 0)
    return TrainingSetup(
        model=model,
        split=split,
        batch=batch,
        cluster=_cluster(row["gpu"], _integer(row, "nvlink_domain", 8), gpus, nic),
        precision=_precision(row),
        recompute=_recompute(row),
        software=family,
        schedule=row["schedule"] or "none",
        layout=next(
            (
                word.removeprefix("pp_layout=")
                for word in row["flags"].split()
                if word.startswith("pp_layout=")
            ),
            "",
        ),
        layers_only="one layer" in row["step_time_kind"],
        no_optimizer="one layer" in row["step_time_kind"],
        assumed=tuple(assumed),
    )
