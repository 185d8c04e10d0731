"""From a row to a training setup: what its words mean, what is assumed, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.cells import flag_number, integer, is_on, number, words
from exactmap.sim.published.model_of import model_of
from exactmap.sim.published.row import Row
from exactmap.sim.published.software_of import (
    layout_of,
    precision_of,
    recompute_of,
    software_of,
    zero_of,
)
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.training import Batch, Split
from exactmap.topology.hardware import MAX_GPUS, Cluster

__all__ = ["setup_of"]

_CLUSTERS = {
    "A100-40G": "a100-40g-8",
    "A100-80G": "a100-8",
    "A100": "a100-8",
    "V100": "v100-8",
    "H100": "h100-8",
    "H200": "h200-8",
    "H800": "h800-8",
    "B200": "b200-8",
    "B300": "b300-8",
    "GB200": "gb200-nvl72",
    "GB300": "gb300-nvl72",
}
_MOST_STAGES = 1024
"""Of a pipeline: the search for its slowest window of ranks grows with the square."""
_USED_OF_72 = 64
"""Jobs on NVL72 racks run in powers of two: 64 of the 72 GPUs, as published recipes place them."""


@lru_cache(maxsize=512)
def _cluster(gpu: str, domain: int, num_gpus: int, nic_bytes_per_s: int) -> Cluster:
    name = _CLUSTERS.get(gpu.upper())
    if name is None:
        raise InvalidInputError(
            "no such GPU is known", where=Place(field="gpu"), got=gpu[:40], expected=", ".join(_CLUSTERS)
        )
    cluster = load_cluster(name)
    scale_up, scale_out = cluster.scale_up, cluster.scale_out
    domain = domain or scale_up.domain_size
    if domain != scale_up.domain_size:
        scale_up = replace(scale_up, domain_size=domain)
    if nic_bytes_per_s:
        scale_out = replace(scale_out, bytes_per_s=nic_bytes_per_s)
    per_host = min(cluster.gpus_per_host, domain)
    rounded = -(-max(num_gpus, domain) // per_host) * per_host
    used = _USED_OF_72 if domain == 72 else domain
    return replace(
        cluster,
        num_gpus=rounded,
        gpus_per_host=per_host,
        scale_up=scale_up,
        scale_out=scale_out,
        used_per_domain=used,
    )


def setup_of(row: Row) -> TrainingSetup:
    """Read a row; what it leaves out is named in `TrainingSetup.assumed`.

    Raises
    ------
    InvalidInputError
        If a field is missing without which no price exists, or the fields contradict each other.
    """
    assumed: list[str] = []
    seq, gpus = integer(row, "seq_len"), integer(row, "n_gpus")
    if gpus > MAX_GPUS:
        raise InvalidInputError("too many GPUs", where=Place(field="n_gpus"), got=str(gpus))
    model = model_of(row, assumed)
    software = software_of(row, assumed)
    tp, pp, cp = (_degree(row, axis, assumed) for axis in ("tp", "pp", "cp"))
    if gpus % (tp * pp * cp):
        raise InvalidInputError(
            "tp x pp x cp does not divide the GPUs",
            where=Place(field="n_gpus"),
            got=f"{gpus} / {tp * pp * cp}",
        )
    dp = integer(row, "dp", gpus // (tp * pp * cp))
    if tp * pp * cp * dp != gpus:
        raise InvalidInputError(
            "tp x pp x cp x dp is not the number of GPUs",
            where=Place(field="dp"),
            got=str(tp * pp * cp * dp),
            expected=str(gpus),
        )
    _check_division(model, tp, pp)
    batch = _batch(row, seq, dp, pp, model, assumed)
    zero, shards = zero_of(row)
    ep = integer(row, "ep", 1) if model.experts else 1
    etp = _expert_tp(row, software.family, tp, ep, tp * cp * dp, assumed)
    if model.experts and ep * etp > tp * cp * dp:
        ep = max(1, tp * cp * dp // etp)
        assumed.append(f"ep={ep}")
    if (tp * cp * dp) % (ep * etp) or (model.experts and model.experts.num_experts % ep):
        raise InvalidInputError(
            "expert parallelism fits neither the ranks nor the experts", where=Place(field="ep"), got=str(ep)
        )
    chunks = _chunks(row, model, pp, assumed)
    split = Split(
        tp=tp,
        cp=cp,
        pp=pp,
        dp=dp,
        ep=ep,
        etp=etp,
        chunks=chunks,
        # torchtitan's tensor parallelism always splits the tokens between products, too.
        sequence_parallel=tp > 1 and (is_on(row, "seq_par") or software.family == "torchtitan"),
        zero=zero,
        cp_exchange=_context_exchange(row),
        # torchtitan shards parameters over context ranks as well.
        shards=shards * (cp if software.family == "torchtitan" else 1)
        if 0 < shards < dp * cp and (dp * cp) % shards == 0
        else 0,
    )
    nic = round(number(row, "nic_gbps_per_gpu") * 125e6) if row["nic_gbps_per_gpu"] else 0
    if not nic and gpus > 8:
        assumed.append("nic_gbps_per_gpu=the GPU's usual")
    alone = "(one layer)" in row["model"]
    try:
        cluster = _cluster(row["gpu"], integer(row, "nvlink_domain", 0, least=1), gpus, nic)
    except InvalidInputError:
        raise
    except ExactmapError as error:
        raise InvalidInputError(
            "the machine cannot be built", where=Place(field="nvlink_domain"), got=str(error)
        ) from error
    return TrainingSetup(
        model=model,
        split=split,
        batch=batch,
        cluster=cluster,
        precision=precision_of(row, zero),
        recompute=recompute_of(row, model.layers, assumed),
        software=software,
        schedule=_schedule(row, pp, chunks),
        layout=layout_of(row),
        layers_only=alone,
        no_optimizer=alone,
        assumed=tuple(assumed),
    )


def _context_exchange(row: Row) -> str:
    """How context parallelism exchanges, by Megatron's word for it; a ring if nothing is said."""
    flags = words(row)
    if flags & {"cp_comm_type=a2a", "ulysses", "cp_a2a"}:
        return "all_to_all"
    return "all_gather" if "cp_comm_type=allgather" in flags else "ring"


def _degree(row: Row, axis: str, assumed: list[str]) -> int:
    if not row[axis]:
        assumed.append(f"{axis}=1")
    return integer(row, axis, 1)


def _check_division(model: ModelConfig, tp: int, pp: int) -> None:
    if model.heads % tp:
        raise InvalidInputError(
            "tensor parallelism does not divide the heads",
            where=Place(field="tp"),
            got=str(tp),
            expected=f"a divisor of {model.heads}",
        )
    most = min(_MOST_STAGES, model.layers + 2)
    if pp > most:
        raise InvalidInputError(
            "more pipeline ranks than layers",
            where=Place(field="pp"),
            got=str(pp),
            expected=f"at most {most}",
        )


def _expert_tp(row: Row, family: str, tp: int, ep: int, ranks: int, assumed: list[str]) -> int:
    """Ranks that split an expert: stated, or Megatron-Core's default, which splits experts as the rest.

    Recipes of Megatron-Bridge set one; so does whoever has too few ranks for the default.
    """
    stated = flag_number(row, "etp")
    if stated is not None:
        return max(1, stated)
    split = tp if family in ("megatron", "nemo") and ranks % (ep * tp) == 0 else 1
    if row["n_experts"] and tp > 1:
        assumed.append(f"etp={split}")
    return split


def _batch(row: Row, seq: int, dp: int, pp: int, model: ModelConfig, assumed: list[str]) -> Batch:
    gbs = integer(row, "gbs")
    microbatch, number_of = integer(row, "mbs", 0), integer(row, "n_microbatches", 0)
    if not microbatch and number_of:
        if gbs % (dp * number_of):
            raise InvalidInputError(
                "the batch does not divide by dp x n_microbatches",
                where=Place(field="n_microbatches"),
                got=str(number_of),
                expected=f"a divisor of {gbs} / {dp}",
            )
        microbatch = gbs // (dp * number_of)
    elif (
        not microbatch
        and pp > 1
        and row["framework"].lower().startswith("torchtitan")
        and gbs % (dp * pp) == 0
    ):
        # torchtitan's default: as many microbatches as stages.
        microbatch = gbs // (dp * pp)
        assumed.append(f"mbs={microbatch}")
    elif not microbatch:
        # About 8,192 tokens at width 4,096, fewer where activations are wider; one where a pipeline must be
        # filled.
        microbatch = 1
        if pp == 1:
            wanted = 8192 * 4096 / (seq * model.hidden)
            while microbatch * 2 <= wanted and gbs % (dp * microbatch * 2) == 0:
                microbatch *= 2
        assumed.append(f"mbs={microbatch}")
    if gbs % (dp * microbatch):
        raise InvalidInputError(
            "the batch does not divide by dp x mbs",
            where=Place(field="gbs"),
            got=str(gbs),
            expected=f"a multiple of {dp * microbatch}",
        )
    return Batch(seq, microbatch, gbs // (dp * microbatch))


def _chunks(row: Row, model: ModelConfig, pp: int, assumed: list[str]) -> int:
    layers = model.layers
    if row["vpp"] or pp == 1:
        chunks = integer(row, "vpp", 1) if pp > 1 else 1
        if pp * chunks > min(_MOST_STAGES, layers + 2 + model.mtp_layers) > pp:
            raise InvalidInputError(
                "more stages than layers",
                where=Place(field="vpp"),
                got=f"{pp} x {chunks}",
                expected=f"at most {layers + 2}",
            )
        return chunks
    chunks = 1
    if row["schedule"].lower().startswith(("interleaved", "not stated")):
        per_rank = layers // pp
        chunks = next((v for v in (4, 3, 2) if per_rank >= 2 * v and per_rank % v == 0), 1)
    assumed.append(f"vpp={chunks}")
    return chunks


def _schedule(row: Row, pp: int, chunks: int) -> str:
    text = row["schedule"].lower()
    if pp == 1:
        return "none"
    if text.startswith(("dualpipe", "zb", "gpipe", "v-")):
        return row["schedule"]
    return "interleaved-1F1B" if chunks > 1 else "1F1B"
