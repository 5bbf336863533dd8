"""The nearest rotation inside a space, and its planes in the order of what they explain.

With H = A Z and Δ = (A″ − A) Z for an orthonormal basis Z (d, m), rotations R̃ = I + Z (O − I) Zᵀ
leave ‖A″ − A R̃‖² = ‖Δ − H (O − I)‖² + const, and everything about them follows from G = HᵀH and
C = HᵀΔ (m, m). Derived in `docs/mathematics.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.factors import Side
from patchkit.factors.core import logarithm
from patchkit.factors.rotation import Rotation, rotation_from_core

_FLOOR = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest rotation I + Z (O − I) Zᵀ: `basis` Z (d, m), `turn` O − I (m, m), and moments."""

    basis: Tensor
    turn: Tensor
    gram: Tensor
    cross: Tensor

    @classmethod
    def of(cls, basis: Tensor, gram: Tensor, cross: Tensor, ridge: float) -> Nearest:
        """Minimise ‖Δ − H (O − I)‖² + ridge ‖O − I‖² over rotations O: the polar factor of a sum.

        The ridge decides where H sees nothing, for the identity; it is at least 1e-13 of ‖G‖. A
        reflection is made a rotation in the direction where that costs least.
        """
        eye = torch.eye(len(gram), dtype=gram.dtype)
        weight = max(ridge, _FLOOR * float(torch.linalg.matrix_norm(gram)))
        left, _, right = torch.linalg.svd(gram + cross + weight * eye)
        if float(torch.linalg.det(left) * torch.linalg.det(right)) < 0:
            left[:, -1] *= -1
        return cls(basis, left @ right - eye, gram, cross)

    @property
    def gain(self) -> float:
        """By how much the rotation lowers ‖A″ − A‖²_F."""
        moved = self.gram @ self.turn
        return float(2 * (self.turn * self.cross).sum() - (self.turn * moved).sum())

    def rotation(self, side: Side) -> Rotation:
        """Return the rotation of W in fp64, all its planes in canonical form."""
        skew = logarithm(self.turn + torch.eye(len(self.turn), dtype=self.turn.dtype))
        # R̃ is Rᵀ on the output side.
        signed = skew if side == "input" else -skew
        return rotation_from_core(self.basis, signed, side, dtype=torch.float64)

    def gains(self, rotation: Rotation) -> Tensor:
        """Return by how much each plane (r,) of the rotation lowers ‖A″ − A‖²_F.

        Planes are orthogonal to each other, so these add up to `gain`, for any choice of planes.
        """
        lengths = torch.linalg.vector_norm(rotation.x, dim=0)
        total = torch.zeros_like(lengths)
        for columns in (rotation.x / lengths, rotation.y):
            inside = self.basis.T @ columns  # (m, r)
            turned = self.turn @ inside
            total += 2 * (turned * (self.cross @ inside)).sum(0)
            total -= (turned * (self.gram @ turned)).sum(0)
        return total


def truncated(rotation: Rotation, gains: Tensor, rank: int | None, energy: float) -> Rotation:
    """Return the fewest planes that explain the share `energy` of what all do, at most `rank`.

    Planes keep their order; those that explain nothing are left out.
    """
    order = torch.argsort(gains, descending=True, stable=True)
    order = order[gains[order] > 0]
    shares = gains[order].cumsum(0) / gains[order].sum()
    # One part in 1e12 less, so that rounding of the sum asks for no plane more.
    enough = int((shares < energy * (1 - 1e-12)).sum()) + 1
    kept = order[: min(enough, len(order) if rank is None else rank)].sort().values
    return Rotation(rotation.side, rotation.x[:, kept], rotation.y[:, kept])
