"""Products of rotations of one side in one form, (I + B M Bᵀ) D.

D is block diagonal, or the identity where no rotation came in blocks. The form is closed: a block
rotation before a low-rank one changes places with it, D (I + B M Bᵀ) = (I + (DB) M (DB)ᵀ) D, and
blocks of two sizes make blocks of their least common multiple.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import Tensor

from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.core import Core
from patchkit.factors.rotation import Rotation


@dataclass(frozen=True, slots=True, eq=False)
class Mixing:
    """(I + B M Bᵀ) D. Shapes: `basis` B (d, m), `middle` M (m, m), `blocks` of D (b, n, n).

    B need not be orthonormal, and m may be 0; `blocks` is None where D is the identity.
    """

    basis: Tensor
    middle: Tensor
    blocks: Tensor | None = None

    @classmethod
    def of(cls, turn: Rotation | RotationBlocks) -> Mixing:
        """Return one rotation in this form; InvariantError beyond its limits."""
        if isinstance(turn, Rotation):
            return cls.of_core(turn.core())
        blocks = turn.matrices()
        return cls(blocks.new_zeros(turn.size, 0), blocks.new_zeros(0, 0), blocks)

    @classmethod
    def of_core(cls, core: Core) -> Mixing:
        """Return a low-rank rotation in this form."""
        return cls(core.basis, core.turn)

    @property
    def directions(self) -> Tensor | None:
        """Columns that span what moves (d, m), None where that may be every direction."""
        return self.basis if self.blocks is None else None

    @property
    def transposed(self) -> Mixing:
        """Return Dᵀ (I + B Mᵀ Bᵀ) in this form."""
        if self.blocks is None:
            return replace(self, middle=self.middle.T)
        back = self.blocks.mT
        return Mixing(blocks_left(back, self.basis), self.middle.T, back)

    def times(self, other: Mixing) -> Mixing:
        """Return the product of this and `other`, on the concatenated bases."""
        turned = other.basis if self.blocks is None else blocks_left(self.blocks, other.basis)
        m, k = len(self.middle), len(other.middle)
        middle = self.middle.new_zeros(m + k, m + k)
        middle[:m, :m] = self.middle
        middle[:m, m:] = self.middle @ (self.basis.T @ turned) @ other.middle
        middle[m:, m:] = other.middle
        basis = torch.cat([self.basis, turned], dim=1)
        return Mixing(basis, middle, _product(self.blocks, other.blocks))

    def left(self, w: Tensor) -> Tensor:
        """Return (I + B M Bᵀ) D W."""
        w = w if self.blocks is None else blocks_left(self.blocks, w)
        return w + self.basis @ (self.middle @ (self.basis.T @ w))

    def right(self, w: Tensor) -> Tensor:
        """Return W (I + B M Bᵀ) D."""
        return self.right_(w.clone())

    def right_(self, w: Tensor) -> Tensor:
        """As `right`, in the memory of W."""
        if len(self.middle):
            w.addmm_((w @ self.basis) @ self.middle, self.basis.T)
        return w if self.blocks is None else w.copy_(blocks_right(w, self.blocks))


def blocks_left(blocks: Tensor, w: Tensor) -> Tensor:
    """Return blockdiag(blocks) W for blocks (b, n, n) and W (b n, columns)."""
    b, n, _ = blocks.shape
    turned: Tensor = blocks @ w.reshape(b, n, -1)
    return turned.reshape(b * n, -1)


def blocks_right(w: Tensor, blocks: Tensor) -> Tensor:
    """Return W blockdiag(blocks) for W (rows, b n) and blocks (b, n, n)."""
    b, n, _ = blocks.shape
    parts: Tensor = w.reshape(-1, b, n).transpose(0, 1) @ blocks  # (b, rows, n)
    return parts.transpose(0, 1).reshape(-1, b * n)


def _product(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    """Return the blocks of D₁ D₂, of the least common multiple of both lengths."""
    if one is None or two is None:
        return two if one is None else one
    size = lcm(one.shape[1], two.shape[1])
    return _widened(one, size) @ _widened(two, size)


def _widened(blocks: Tensor, size: int) -> Tensor:
    """Return the same block-diagonal matrix in blocks of `size`, a multiple of their own."""
    b, n, _ = blocks.shape
    if n == size:
        return blocks
    wide = blocks.new_zeros(b * n // size, size, size)
    for index, block in enumerate(blocks):
        group, start = divmod(index * n, size)
        wide[group, start : start + n, start : start + n] = block
    return wide
