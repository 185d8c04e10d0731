"""How a model is trained, apart from the machine: split, batch, number formats, recompute, software.

Nothing here has a time. `exactmap.sim.workload.layer_work` makes operators of it, `exactmap.sim.step` a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Batch", "Precision", "Recompute", "Software", "Split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Ranks along each parallel axis.

    Parameters
    ----------
    tp, cp, pp, dp
        Tensor, context, pipeline and data parallel; their product is the number of GPUs.
    ep, etp
        Ranks that share the experts of a layer; ranks that share one expert. The expert group lies inside
        tp x cp x dp: neighbouring ranks are `etp`, then `ep`.
    chunks
        Chunks (virtual stages) of each pipeline rank.
    sequence_parallel
        Whether the tokens between tensor-parallel products are split over tp as well.
    zero
        ZeRO stage: 0 all-reduce, 1 the optimizer's state is sharded, 2 gradients too, 3 parameters too
        (FSDP).
    shards
        Data ranks (dp x cp) that a ZeRO shard spreads over; the state is repeated over the rest (HSDP). 0:
        all.
    cp_exchange
        How context parallelism moves keys and values: ``ring`` (point to point beside attention),
        ``all_to_all`` (heads for tokens), ``all_gather``.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    etp: int = 1
    chunks: int = 1
    sequence_parallel: bool = False
    zero: int = 0
    shards: int = 0
    cp_exchange: str = "ring"

    @property
    def num_ranks(self) -> int:
        """GPUs in use."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def data_ranks(self) -> int:
        """Ranks that hold the same dense parameters: data and context parallel."""
        return self.dp * self.cp

    @property
    def expert_data_ranks(self) -> int:
        """Ranks that hold the same experts."""
        return max(1, self.tp * self.cp * self.dp // (self.ep * self.etp))


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens of a step: `microbatch` sequences of `seq`, `num_microbatches` times on each data rank."""

    seq: int
    microbatch: int
    num_microbatches: int

    @property
    def rank_tokens(self) -> int:
        """Tokens that a data rank sees in a step."""
        return self.seq * self.microbatch * self.num_microbatches


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats.

    Parameters
    ----------
    name
        As the user calls it.
    compute
        Format of the layers' products: ``fp32``, ``fp16``, ``bf16``, ``fp8``, ``fp4``.
    scaling
        How narrow formats are scaled: ``tensor`` (one factor, current), ``block`` (128 x 128), ``mx`` (32),
        ``nv`` (16), ``row`` (one factor a row); empty for the wide ones.
    param_bytes, grad_bytes, reduce_bytes, master_bytes, moment_bytes
        Bytes of a parameter as products read it, of its gradient as accumulated, of its gradient on the wire,
        of the optimizer's own copy (0: none), of each of Adam's moments.
    gather_bytes
        Bytes of a parameter on the wire where it is gathered (ZeRO).
    autocast
        Whether parameters are kept wide and cast for each use (PyTorch AMP).
    """

    name: str = "bf16"
    compute: str = "bf16"
    scaling: str = ""
    param_bytes: float = 2
    grad_bytes: float = 4
    reduce_bytes: float = 4
    master_bytes: float = 4
    moment_bytes: float = 4
    gather_bytes: float = 2
    autocast: bool = False

    @property
    def narrow(self) -> bool:
        """Whether products' inputs are cast below 16 bits."""
        return self.compute in ("fp8", "fp4")

    @property
    def act_bytes(self) -> int:
        """Bytes of an activation between operators."""
        return 4 if self.compute == "fp32" else 2


@dataclass(frozen=True, slots=True)
class Recompute:
    """What backward computes again.

    Parameters
    ----------
    kind
        ``none``, ``full`` (whole layers from their input), ``modules`` (the named ones of every layer).
    modules
        Names as Megatron has them: ``core_attn``, ``layernorm``, ``moe_act``, ``mla_up_proj``, ``mlp``,
        ``moe``, ``shared_experts``; and ``save_products`` for policies that keep what products give and
        compute the rest again (PyTorch's selective checkpointing, JAX's SAVE_DOT policies).
    share
        Share of the layers that `kind` applies to.
    """

    kind: str = "none"
    modules: frozenset[str] = frozenset()
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Software:
    """What runs the step, as far as it moves time and memory.

    Parameters
    ----------
    family
        ``megatron``, ``megatron-deepspeed``, ``nemo``, ``megatron-bridge``, ``torchtitan``, ``composer``,
        ``jax``, ``deepspeed``, ``llm.c``, ``hai-llm``, ``exactmap``.
    release
        Its version, as published; empty: not known.
    fused_attention
        FlashAttention-like kernels (scores never stored), or products and a softmax apart.
    stored_scores
        Whether attention alone stores its scores: the library has no fused kernel for such heads.
    compiled
        Whether a compiler fuses what lies between products (torch.compile, XLA).
    overlap_grad, overlap_param, overlap_tp, overlap_p2p, overlap_ep
        Communication hidden behind compute: gradient reduction, parameter gathering, tensor parallel,
        pipeline hops, expert exchange.
    cuda_graphs
        Modules captured in CUDA graphs; ``full`` for a whole iteration.
    dispatcher
        How tokens reach experts: ``all_to_all``, ``deepep``, ``hybridep``, ``all_gather``.
    grouped_gemm
        Whether a rank's experts are one grouped product, or one product each.
    capacity_factor
        Tokens of an expert over its even share, the rest dropped; 0: dropless.
    balanced
        Whether routing is forced to be even.
    offloaded_layers
        Layers whose activations are kept in the host's memory.
    optimizer_offload
        Share of the optimizer's state that the host keeps.
    adapter_rank
        Weights are frozen, and adapters of this inner width are trained (LoRA); 0: everything is trained.
    packed_tokens
        Length of the samples that a sequence is packed of, which see nothing of one another; 0: one document.
    fused_permute
        Whether tokens are sorted by expert, weighted and summed in one kernel each way.
    flags
        Other words of the source, for what reads them by name.
    """

    family: str = "exactmap"
    release: str = ""
    fused_attention: bool = True
    stored_scores: bool = False
    compiled: bool = False
    overlap_grad: bool = False
    overlap_param: bool = False
    overlap_tp: bool = False
    overlap_p2p: bool = False
    overlap_ep: bool = False
    cuda_graphs: frozenset[str] = frozenset()
    dispatcher: str = "all_to_all"
    grouped_gemm: bool = True
    capacity_factor: float = 0.0
    balanced: bool = True
    offloaded_layers: int = 0
    optimizer_offload: float = 0.0
    adapter_rank: int = 0
    packed_tokens: int = 0
    fused_permute: bool = True
    flags: frozenset[str] = field(default_factory=frozenset)
