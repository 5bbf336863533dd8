"""The small matrix inside a low-rank rotation.

A skew generator A = X Yᵀ − Y Xᵀ of rank 2r acts inside the span of its columns. With B an
orthonormal basis of that span, A = B S Bᵀ and exp(A) = I + B (exp(S) − I) Bᵀ, so that everything
is done with B (d, 2r) and matrices of size 2r; nothing of size d × d exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchkit.errors import InvariantError

NORM_LIMIT = 64.0
"""Largest ‖A‖₂ in radians whose exponential is trusted: beyond it fp64 loses orthogonality."""

_SMALL = 0.1
_TERMS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """The rotation I + B (Q − I) Bᵀ with Q = exp(S); all in fp64.

    Shapes: `basis` B (d, m) with orthonormal columns, `skew` S (m, m), `q` Q (m, m).
    """

    basis: Tensor
    skew: Tensor
    q: Tensor

    @property
    def turn(self) -> Tensor:
        """Q − I (m, m)."""
        return self.q - torch.eye(len(self.q), dtype=self.q.dtype, device=self.q.device)


def skew_core(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return B (d, m) and S (m, m) in fp64 with X Yᵀ − Y Xᵀ = B S Bᵀ and BᵀB = I.

    X and Y are (d, r), and m = min(d, 2r). Householder QR keeps B orthonormal where columns are
    parallel, zero or dependent: B then spans more than it needs to, and S has zeros there.
    InvariantError if an entry is not finite.
    """
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise InvariantError("the generator of a rotation holds values that are not finite")
    joined = x.new_empty(len(x), 2 * x.shape[1], dtype=torch.float64)  # (d, 2r)
    joined[:, : x.shape[1]], joined[:, x.shape[1] :] = x, y
    basis, corner = torch.linalg.qr(joined)
    left, right = corner[:, : x.shape[1]], corner[:, x.shape[1] :]  # (m, r)
    half = left @ right.T
    return basis, half - half.T


def spectral_norm(skew: Tensor) -> float:
    """Return ‖S‖₂ in radians, the largest angle; InvariantError if not finite or above 64."""
    norm = _largest_angle(skew)
    if not norm <= NORM_LIMIT:
        raise InvariantError(
            f"a rotation by {norm:.3g} radians is beyond the limit of {NORM_LIMIT:g}",
            details={"norm": norm, "limit": NORM_LIMIT},
        )
    return norm


def _largest_angle(skew: Tensor) -> float:
    if skew.numel() == 0:
        return 0.0
    if not bool(torch.isfinite(skew).all()):
        return float("inf")
    return float(torch.linalg.matrix_norm(skew, ord=2))


def exponential(basis: Tensor, skew: Tensor) -> Core:
    """Return the core of exp(B S Bᵀ); InvariantError beyond the norm limit, before computing."""
    spectral_norm(skew)
    return Core(basis, skew, skew_exponential(skew))


def skew_exponential(skew: Tensor) -> Tensor:
    """Return exp(S) for one S (m, m) in fp64, to a few units of rounding.

    torch's own polynomial for ‖S‖₁ near 0.05 is accurate only to 3e-10, so that small arguments
    get the Taylor series here: its eleventh term is below 1e-18 there.
    """
    if skew.numel() and float(torch.linalg.matrix_norm(skew, ord=1)) >= _SMALL:
        large: Tensor = torch.linalg.matrix_exp(skew)
        return large
    eye = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    total = eye
    for divisor in range(_TERMS, 0, -1):
        total = eye + (skew / divisor) @ total
    return total


def rotate_right(w: Tensor, core: Core) -> Tensor:
    """Return W R (n, d) for rows W (n, d)."""
    return w + ((w @ core.basis) @ core.turn) @ core.basis.T


def rotate_left(core: Core, w: Tensor) -> Tensor:
    """Return R W (d, n) for columns W (d, n)."""
    return w + core.basis @ (core.turn @ (core.basis.T @ w))


def logarithm(q: Tensor) -> Tensor:
    """Return the skew S (m, m) with exp(S) = Q and angles in (−π, π], for a rotation Q (m, m).

    The real Schur form of a normal matrix is block diagonal, and each 2 × 2 block is a plane; two
    eigenvalues −1 make a plane of angle π. Raises InvariantError when det Q is −1.
    """
    import scipy.linalg  # only where a rotation is made: reading and applying do without

    form, vectors = scipy.linalg.schur(q.cpu().numpy(), output="real")
    skew = np.zeros_like(form)
    index, flipped = 0, []
    while index < len(form):
        if index + 1 < len(form) and form[index + 1, index] != 0.0:
            angle = np.arctan2(form[index + 1, index], form[index, index])
            skew[index + 1, index], skew[index, index + 1] = angle, -angle
            index += 2
            continue
        if form[index, index] < 0.0:
            flipped.append(index)
        index += 1
    if len(flipped) % 2:
        raise InvariantError("a reflection is not a rotation: its determinant is −1, not 1")
    for first, second in zip(flipped[::2], flipped[1::2], strict=True):
        skew[second, first], skew[first, second] = np.pi, -np.pi
    return torch.from_numpy(vectors @ skew @ vectors.T).to(q.device)
