"""A rotation stored as a low-rank skew generator: R = exp(X Yᵀ − Y Xᵀ).

Skew for any finite X and Y, so a rounded, damaged or hostile generator can be the wrong rotation
but never changes a norm or a singular value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors import Side
from patchkit.factors.core import Core, exponential, skew_core, spectral_norm


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """R = exp(A) with A = X Yᵀ − Y Xᵀ, acting on one side of a weight.

    Shapes: `x`, `y` (d, r), where d is d_in for side `input` and d_out for side `output`. One pair
    of columns is a plane; with orthonormal columns p, q and x = θ p, y = q it turns q towards p
    by θ radians.
    """

    kind: ClassVar[Literal["rotation"]] = "rotation"

    side: Side
    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        """InvariantError unless x and y are matrices of one shape."""
        if self.x.ndim != 2 or self.x.shape != self.y.shape:
            raise InvariantError(
                f"x and y of a rotation differ in shape: {_shape(self.x)} and {_shape(self.y)}"
            )

    @property
    def rank(self) -> int:
        """Number of stored planes r; R − I has rank at most 2r."""
        return self.x.shape[1]

    @property
    def size(self) -> int:
        """Length d of the side that is rotated."""
        return self.x.shape[0]

    def inverse(self) -> Rotation:
        """Return exp(−A), bit for bit the same columns with the sign of x changed."""
        return replace(self, x=-self.x)

    def power(self, alpha: float) -> Rotation:
        """Return exp(αA), in fp64 so that R^α R^β = R^(α+β) is limited by no stored precision."""
        return replace(self, x=self.x.to(torch.float64) * alpha, y=self.y.to(torch.float64))

    def core(self) -> Core:
        """Return B, S = BᵀAB and exp(S) in fp64; InvariantError if not finite or ‖A‖₂ > 64."""
        return exponential(*skew_core(self.x, self.y))

    def angles(self) -> Tensor:
        """Return the r angles of the generator in radians, descending, as stated (not wrapped)."""
        _, skew = skew_core(self.x, self.y)
        spectral_norm(skew)
        # Singular values of a skew matrix come in equal pairs, one pair for each plane.
        pairs: Tensor = torch.linalg.svdvals(skew)
        return pairs[0 : 2 * self.rank : 2]

    def length(self) -> float:
        """Return the geodesic length ‖A‖_F = √(2 Σ θ²) in radians."""
        _, skew = skew_core(self.x, self.y)
        spectral_norm(skew)
        return float(torch.linalg.matrix_norm(skew))

    def check(self) -> None:
        """InvariantError if a value is not finite or an angle above the limit."""
        self.norm()

    def norm(self) -> float:
        """Return ‖A‖₂ in radians; InvariantError if not finite or above 64."""
        return spectral_norm(skew_core(self.x, self.y)[1])


def rotation_from_core(
    basis: Tensor,
    skew: Tensor,
    side: Side,
    *,
    tolerance: float = 1e-9,
    dtype: torch.dtype = torch.float32,
) -> Rotation:
    """Return the canonical generator of exp(B S Bᵀ), one pair of columns for each plane.

    `basis` (d, m) may have any independent or dependent columns, `skew` (m, m) is made exactly
    skew; r ≤ m/2. Angles are wrapped into (0, π], planes below `tolerance` radians are left out,
    and planes stand in descending order of angle. Within a plane, the row where the plane is
    largest is zero in y and positive in x, so columns of distinct
    angles do not depend on how they were found.
    InvariantError if an entry is not finite or ‖S‖₂ > 64.
    """
    outer, corner = torch.linalg.qr(basis.to(torch.float64))
    inner = corner @ skew.to(torch.float64) @ corner.T
    inner = (inner - inner.T) / 2
    spectral_norm(inner)
    angles, p, q = _planes(inner)
    angles, flip = _wrap(angles)
    keep = torch.nonzero(angles >= tolerance).flatten()
    keep = keep[torch.argsort(angles[keep], descending=True, stable=True)]
    p, q = _in_phase(outer @ p[:, keep], outer @ (q * flip)[:, keep])
    return Rotation(side, (p * angles[keep]).to(dtype), q.to(dtype))


def _planes(skew: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return angles θ ≥ 0 (k,) and orthonormal p, q (m, k) with S = Σ θ (p qᵀ − q pᵀ).

    i S is Hermitian with eigenvalues ±θ; an eigenvector (q + i p)/√2 of θ > 0 gives S q = θ p and
    S p = −θ q. Unlike a real Schur form this pairs equal angles without looking at near-zeros.
    """
    values, vectors = torch.linalg.eigh(1j * skew)
    half = len(skew) // 2
    chosen = vectors[:, len(skew) - half :] * math.sqrt(2.0)
    return values[len(skew) - half :], chosen.imag, chosen.real


def _wrap(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return angles in [0, π] and the signs of q that make them the same rotations."""
    turned = torch.remainder(angles, 2 * math.pi)
    over = turned > math.pi
    signs = torch.where(over, -1.0, 1.0).to(angles.dtype)
    return torch.where(over, 2 * math.pi - turned, turned), signs


def _in_phase(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each pair (p, q) inside its plane until q is 0 and p positive in the largest row."""
    if p.numel() == 0:
        return p, q
    radius = torch.hypot(p, q)  # (d, k); unchanged by turning inside the plane
    row = radius.argmax(dim=0, keepdim=True)
    a, b, r = (columns.gather(0, row) for columns in (p, q, radius))
    cos, sin = a / r, b / r
    return cos * p + sin * q, (cos * q - sin * p).scatter(0, row, 0.0)


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
