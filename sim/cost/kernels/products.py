"""Time of a matrix product on a GPU from its shape alone: tiles, waves, memory, and what a launch costs.

C[m, n] = A[m, k] B[k, n] is cut into tiles of C; each streaming multiprocessor (SM) makes one tile at a time,
so tiles come in waves, and a wave takes as long full as with one tile in it. Few tiles may be split along k,
which costs a sum of the parts::

    time   = floor + ( compute^3 + memory^3 )^(1/3)
    compute = min over tiles, splits of  waves x 2 a b (k / split + depth) / (rate of an SM x share of a x b)
    waves   = ceil( products x ceil(m / a) x ceil(n / b) x split / SMs )

`depth` is what a tile's start and end cost, in steps of k. The share is 1 for tiles of 128 x 256; smaller
ones read shared memory more often for each operation. Several equal products of one launch (experts) fill
waves together. Tiles and waves: NVIDIA, "Matrix Multiplication Background User's Guide"; splits along k:
Osama et al., Stream-K, arXiv:2301.03598.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProductPhysics"]

_TILES = ((128, 256), (256, 128), (128, 128), (64, 128), (128, 64))
_LARGE, _MIDDLE = 128 * 256, 128 * 128
_SPLITS = (2, 4, 8)
_SUM_NS = 1000.0
"""Launch of the sum over the parts of a product that is split along k."""
_SUM_SHARE = 0.5
"""Of the traffic of that sum (parts are written and read in 32 bits) what does not stay in the cache."""


@dataclass(frozen=True, slots=True)
class ProductPhysics:
    """Products of one number format on one GPU.

    Parameters
    ----------
    num_sms
        Streaming multiprocessors.
    sm_flop_per_ns
        What one of them reaches in long products with large tiles.
    depth
        Cost of a tile's start and end, in steps of k.
    floor_ns
        Least time of a kernel.
    bytes_per_ns
        Memory bandwidth that products reach.
    middle_share, small_share
        Rate of tiles of 128 x 128 and of 64 x 128 over that of 128 x 256.
    element_bytes
        Bytes of an element of A and B, scales included; C has 2.
    """

    num_sms: int
    sm_flop_per_ns: float
    depth: float
    floor_ns: float
    bytes_per_ns: float
    middle_share: float
    small_share: float
    element_bytes: float

    def time_ns(self, m: int, n: int, k: int, products: int = 1) -> float:
        """Time of `products` products of one shape in one launch, in ns.

        Examples
        --------
        >>> h100 = ProductPhysics(132, 6460.0, 169.0, 1628.0, 2876.0, 0.98, 0.67, 2.0)
        >>> h100.time_ns(128 * 66 + 1, 2048, 8192) > 1.1 * h100.time_ns(128 * 66, 2048, 8192)
        True
        """
        compute = self._compute_ns(m, n, k, products)
        moved = products * (self.element_bytes * k * (m + n) + 2.0 * m * n) / self.bytes_per_ns
        return self.floor_ns + float((compute**3 + moved**3) ** (1 / 3))

    def _compute_ns(self, m: int, n: int, k: int, products: int) -> float:
        sms = self.num_sms
        best = 0.0
        for a, b in _TILES:
            size = a * b
            share = 1.0 if size == _LARGE else self.middle_share if size == _MIDDLE else self.small_share
            tile_ns = 2.0 * size / (self.sm_flop_per_ns * share)
            tiles = products * -(-m // a) * -(-n // b)
            time = -(-tiles // sms) * tile_ns * (k + self.depth)
            if not best or time < best:
                best = time
            if 2 * tiles > sms:
                continue
            part_ns = _SUM_SHARE * 8.0 * products * m * n / self.bytes_per_ns
            for split in _SPLITS:
                time = -(-tiles * split // sms) * tile_ns * (k / split + self.depth)
                time += _SUM_NS + split * part_ns
                best = min(best, time)
        return best
