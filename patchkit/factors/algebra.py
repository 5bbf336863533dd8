"""The group of rotations of one side: many become one, exactly.

Every product works in the span of the bases involved, so its cost is O(d m² + m³) with m the
number of directions that move, never d³.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors.core import Core
from patchkit.factors.rotation import Rotation, rotation_from_core


def merge(
    rotations: Sequence[Rotation],
    *,
    tolerance: float = 1e-9,
    dtype: torch.dtype = torch.float32,
) -> Rotation:
    """Return the one rotation that acts as `rotations` do one after another.

    Input-side rotations act as W R₁ R₂ …, output-side ones as … R₂ R₁ W. Planes that turn by less
    than `tolerance` radians are left out: the result then differs by at most 2 sin(tolerance / 2)
    in spectral norm. Raises InvariantError when the list is empty or mixes sides or sizes.
    """
    if len({(rotation.side, rotation.size) for rotation in rotations}) != 1:
        raise InvariantError("only rotations of one side and one size can be merged")
    side = rotations[0].side
    ordered = rotations if side == "input" else tuple(reversed(rotations))
    basis, q = product([rotation.core() for rotation in ordered])
    return rotation_from_core(basis, logarithm(q), side, tolerance=tolerance, dtype=dtype)


def product(cores: Sequence[Core]) -> tuple[Tensor, Tensor]:
    """Return a basis (d, m) and Q (m, m) in fp64 with Π (I + Bᵢ(Qᵢ−I)Bᵢᵀ) = I + B(Q−I)Bᵀ."""
    basis, _ = torch.linalg.qr(torch.cat([core.basis for core in cores], dim=1))  # (d, m)
    total = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    for core in cores:
        inside = basis.T @ core.basis  # (m, 2r)
        total = total + ((total @ inside) @ core.turn) @ inside.T
    return basis, total


def logarithm(q: Tensor) -> Tensor:
    """Return the skew S (m, m) with exp(S) = Q and angles in (−π, π], for a rotation Q (m, m).

    The real Schur form of a normal matrix is block diagonal, and each 2 × 2 block is a plane; two
    eigenvalues −1 make a plane of angle π. Raises InvariantError when det Q is −1.
    """
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
