"""A rotation stored as the diagonal blocks of its skew generator: R = blockdiag(exp(Sᵢ)).

For rotations that move a large part of all directions, where two columns for each plane would be
more than the blocks: one block is any rotation of the side, many small blocks are orthogonal
fine-tuning. Each block is its strict lower triangle, so any finite values are exactly skew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors import Side
from patchkit.factors.core import NORM_LIMIT, logarithm, skew_exponential, spectral_norm

ORTHOGONAL_WITHIN = 1e-6
"""Largest entry of QᵀQ − I for which a matrix is taken for orthogonal."""


@dataclass(frozen=True, slots=True, eq=False)
class RotationBlocks:
    """R = blockdiag(exp(S₁), …, exp(S_b)) acting on one side of a weight.

    Shape: `s` (b, n(n−1)/2), where b·n is d_in for side `input` and d_out for side `output`. A row
    is the strict lower triangle of one Sᵢ (n, n), row after row: S₁₀, S₂₀, S₂₁, S₃₀, …; Sᵢᵀ = −Sᵢ.
    """

    kind: ClassVar[Literal["rotation-blocks"]] = "rotation-blocks"

    side: Side
    s: Tensor

    def __post_init__(self) -> None:
        """InvariantError unless each row is the triangle of a block of at least 2 × 2."""
        if self.s.ndim != 2 or not len(self.s) or not triangle_side(self.s.shape[1]):
            raise InvariantError(
                f"rows of {tuple(self.s.shape)} are not the triangles of square blocks"
            )

    @property
    def blocks(self) -> int:
        """Number of blocks b."""
        return len(self.s)

    @property
    def block_size(self) -> int:
        """Length n of a block."""
        return triangle_side(self.s.shape[1])

    @property
    def size(self) -> int:
        """Length d = b n of the side that is rotated."""
        return self.blocks * self.block_size

    @property
    def rank(self) -> int:
        """Number of planes b ⌊n/2⌋; R − I has rank at most twice that."""
        return self.blocks * (self.block_size // 2)

    def inverse(self) -> RotationBlocks:
        """Return exp(−S), bit for bit the same values with their signs changed."""
        return replace(self, s=-self.s)

    def power(self, alpha: float) -> RotationBlocks:
        """Return exp(αS), in fp64 so that R^α R^β = R^(α+β) is limited by no stored precision."""
        return replace(self, s=self.s.to(torch.float64) * alpha)

    def generators(self) -> Tensor:
        """Return the skew blocks S (b, n, n) in fp64."""
        return unpack(self.s.to(torch.float64))

    def matrices(self) -> Tensor:
        """Return the blocks exp(S) (b, n, n) in fp64; InvariantError if not finite or ‖S‖₂ > 64."""
        self.check()
        # One block at a time: the exponential needs several matrices of the size of its argument.
        found = self.generators()
        for block in found:
            block.copy_(skew_exponential(block))
        return found

    def check(self) -> None:
        """InvariantError if a value is not finite or an angle above the limit, O(d n) as a rule."""
        if not bool(torch.isfinite(self.s).all()):
            raise InvariantError("the generator of a rotation holds values that are not finite")
        # Angles come in pairs, so the largest is at most ‖S‖_F / √2: no decomposition is needed.
        bounds = torch.linalg.vector_norm(self.s.to(torch.float64), dim=1)
        for index in torch.nonzero(~(bounds <= NORM_LIMIT)).flatten().tolist():
            spectral_norm(unpack(self.s[index : index + 1].to(torch.float64))[0])

    def angles(self) -> Tensor:
        """Return the b ⌊n/2⌋ angles in radians, descending, as stated (not wrapped)."""
        self.check()
        pairs: Tensor = torch.linalg.svdvals(self.generators())  # (b, n), each angle twice
        angles: Tensor = pairs[:, 0 : 2 * (self.block_size // 2) : 2]
        return angles.flatten().sort(descending=True).values

    def length(self) -> float:
        """Return the geodesic length ‖S‖_F = √(2 Σ θ²) in radians."""
        self.check()
        return math.sqrt(2.0) * float(torch.linalg.vector_norm(self.s.to(torch.float64)))

    def norm(self) -> float:
        """Return ‖S‖₂ in radians; InvariantError if not finite or above 64."""
        self.check()
        return max(spectral_norm(block) for block in self.generators())


def blocks_from_matrices(
    q: Tensor, side: Side, *, dtype: torch.dtype = torch.float32
) -> RotationBlocks:
    """Return the generator of orthogonal blocks `q` (b, n, n), with angles in (−π, π].

    A block of determinant −1 is no rotation and its last column changes sign first (`proper`);
    another choice of what to flip is the caller's. The real Schur form of a block gives its
    logarithm, O(n³). InvariantError unless the blocks are orthogonal to 1e-6.
    """
    q = q.to(torch.float64)
    eye = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    off = float((q.mT @ q - eye).abs().max())
    if not off <= ORTHOGONAL_WITHIN:
        raise InvariantError(
            f"blocks are orthogonal only to {off:.3g}; {ORTHOGONAL_WITHIN:g} is allowed"
        )
    skew = torch.stack([logarithm(proper(block)) for block in q])
    return RotationBlocks(side, pack(skew).to(dtype))


def proper(q: Tensor) -> Tensor:
    """Return an orthogonal matrix (n, n) with determinant 1: −1 flips the last column's sign."""
    if float(torch.linalg.det(q)) > 0:
        return q
    return torch.cat([q[:, :-1], -q[:, -1:]], dim=1)


def pack(skew: Tensor) -> Tensor:
    """Return the strict lower triangles (b, n(n−1)/2) of square matrices (b, n, n)."""
    n = skew.shape[-1]
    rows, columns = torch.tril_indices(n, n, -1, device=skew.device)
    return skew[:, rows, columns]


def unpack(s: Tensor) -> Tensor:
    """Return the skew matrices (b, n, n) of packed triangles (b, n(n−1)/2)."""
    n = triangle_side(s.shape[1])
    rows, columns = torch.tril_indices(n, n, -1, device=s.device)
    lower = s.new_zeros(len(s), n, n)
    lower[:, rows, columns] = s
    return lower - lower.mT


def triangle_side(entries: int) -> int:
    """Return n for n(n−1)/2 entries of a strict triangle, 0 for a number that is not one."""
    n = (1 + math.isqrt(1 + 8 * entries)) // 2
    return n if n >= 2 and n * (n - 1) // 2 == entries else 0


def merge_blocks(
    factors: Sequence[RotationBlocks], *, dtype: torch.dtype = torch.float32
) -> RotationBlocks:
    """Return the one rotation in blocks that acts as `factors` do one after another.

    Exact, block by block, and no larger than one of them. InvariantError when the list is empty or
    mixes sides or sizes of blocks.
    """
    layouts = {(factor.side, factor.blocks, factor.block_size) for factor in factors}
    if len(layouts) != 1:
        raise InvariantError(
            "only rotations in equal blocks of one side can be merged, not those of "
            f"{len(layouts)} layouts"
        )
    side = factors[0].side
    ordered = factors if side == "input" else tuple(reversed(factors))
    total = reduce(torch.matmul, (factor.matrices() for factor in ordered))
    return blocks_from_matrices(total, side, dtype=dtype)
