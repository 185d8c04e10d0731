"""Time of causal FlashAttention on a known GPU.

A thread block makes 128 queries of one head against all keys before them, so work comes in rows x
ceil(tokens / 128) pieces of growing length. Handed out longest first, they take the larger of the mean load
of an SM and the longest piece::

    work    = block x tokens / 128 (tokens / 128 + 1) / 2 x rows          blocks of 128 x 128 scores
    forward = floor + max(work / SMs, block x tokens / 128) + start x pieces / SMs

A block's time has products (4 x 128 x 128 x head dimension operations) and softmax (128 x 128 exponentials
and their kin, whatever the head dimension). With products at a share of the time and the rest softmax, heads
of other dimensions follow from those of 128, which were measured. FlashAttention-3 on H100 (arXiv:2407.08608,
figure 5, 16 k tokens) reaches 648 TFLOP/s with heads of 128 and 497 with 64, with a mask 621 and 473: a share
of 0.7 gives 498 and 478. With heads of 256 its registers are short and it gains less (642 with a mask) than
the form says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import exp, log

from exactmap.sim.cost.grid import LogGrid
from exactmap.sim.cost.kernels.measured import attention_points, table

__all__ = ["BACKWARD_SHARE", "AttentionModel", "AttentionPhysics", "attention_model", "attention_physics"]

BACKWARD_SHARE = 0.75
"""Rate of backward (five products where forward has two) over forward's: 0.65 to 0.85 for FlashAttention-3 on
H100, about 550 against 650 TFLOP/s at 16 k tokens and heads of 128 (arXiv:2407.08608, figures 5 and 6)."""
_BLOCK = 128
_MEASURED_DIM = 128


@dataclass(frozen=True, slots=True)
class AttentionPhysics:
    """Forward attention with heads of 128 on one GPU.

    Parameters
    ----------
    num_sms
        Streaming multiprocessors.
    block_ns
        Time of a block of 128 x 128 scores on one of them.
    start_ns
        Start and end of a piece.
    floor_ns
        Least time of a kernel.
    product_share
        Share of a block's time that is products.
    """

    num_sms: int
    block_ns: float
    start_ns: float
    floor_ns: float
    product_share: float

    def time_ns(self, rows: int, seq: int) -> float:
        """Time of forward over whole sequences."""
        along = max(1, -(-seq // _BLOCK))
        pieces = rows * along
        work = self.block_ns * rows * along * (along + 1) / 2
        return (
            self.floor_ns
            + max(work / self.num_sms, self.block_ns * along)
            + self.start_ns * pieces / self.num_sms
        )

    def of_dim(self, head_dim: float) -> float:
        """Time of a head dimension over that of 128, for the same scores."""
        return self.product_share * head_dim / _MEASURED_DIM + 1.0 - self.product_share


@dataclass(frozen=True, slots=True)
class AttentionModel:
    """Forward attention on one GPU: physics times what measurements say on top."""

    physics: AttentionPhysics
    factors: LogGrid

    def time_ns(self, rows: int, seq: int, head_dim: float = _MEASURED_DIM) -> float:
        """Time of causal forward attention in ns.

        Parameters
        ----------
        rows
            Sequences x query heads.
        seq
            Tokens of a sequence.
        head_dim
            Mean of the dimensions of keys and values.
        """
        axes = self.factors.axes
        # Beyond the measured sizes the edge holds.
        place = tuple(
            exp(min(max(log(size), axis[0]), axis[-1])) for size, axis in zip((rows, seq), axes, strict=True)
        )
        return self.physics.time_ns(rows, seq) * self.factors.at(place) * self.physics.of_dim(head_dim)


def attention_physics(gpu: str) -> AttentionPhysics | None:
    """Fitted physics of a GPU by the name of its kernels."""
    for row in table("attention-physics.csv"):
        if row["gpu"] == gpu:
            names = ("block_ns", "start_ns", "floor_ns", "product_share")
            return AttentionPhysics(int(row["num_sms"]), *(float(row[name]) for name in names))
    return None


@cache
def attention_model(gpu: str) -> AttentionModel | None:
    """Model of a GPU's attention by the name of its kernels; None if it was not measured."""
    physics = attention_physics(gpu)
    points = attention_points(gpu)
    if physics is None or not points:
        return None
    factors: dict[tuple[int, ...], float] = {
        (rows, seq): time / physics.time_ns(rows, seq) for (rows, seq), time in points.items()
    }
    # rows 8 to 256 at every length: a whole grid.
    return AttentionModel(physics, LogGrid.of(factors))
