"""How far two rotations of one side are from each other, and whether their order matters.

Each argument is an ordered list of rotations of one side and stands for their product, the empty
list for the identity. Everything is computed in fp64 inside the span of all bases together,
(m, m) with m ≤ min(d, 2 Σ r), where both products have the form R = I + B (Q − I) Bᵀ. Outside that
span both are the identity, so that norms of differences are those of the small matrices. Lists of
rotations in blocks of one size are compared block by block.

All functions raise InvariantError for rotations of different sides or sizes, and where low-rank
rotations and blocks are mixed on a side longer than 4096.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy.linalg
import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors.algebra import in_order, joint_basis, product_in
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Turn

MOVING = 1e-9
"""Smallest 2 sin(θ / 2) of a plane that counts as moved by a rotation."""


def geodesic_distance(a: Sequence[Turn], b: Sequence[Turn]) -> float:
    """Return ‖log(RₐᵀR_b)‖_F = √(2 Σ θ²) in radians, θ ∈ [0, π] the angles between a and b."""
    q_a, q_b = _joint(a, b)
    # Every θ stands twice among the eigenvalues e^{±iθ}, hence no factor 2.
    return float(torch.linalg.vector_norm(torch.linalg.eigvals(q_a.mT @ q_b).angle()))


def chordal_distance(a: Sequence[Turn], b: Sequence[Turn]) -> float:
    """Return ‖Rₐ − R_b‖_F = √(8 Σ sin²(θ / 2))."""
    q_a, q_b = _joint(a, b)
    return float(torch.linalg.vector_norm(q_a - q_b))


def spectral_distance(a: Sequence[Turn], b: Sequence[Turn]) -> float:
    """Return ‖Rₐ − R_b‖₂ = 2 sin(θ_max / 2), the most by which a unit vector's images differ."""
    q_a, q_b = _joint(a, b)
    return _norm(q_a - q_b)


def commutator_norm(a: Sequence[Turn], b: Sequence[Turn]) -> float:
    """Return ‖RₐR_b − R_bRₐ‖₂ ∈ [0, 2], the most that changing their order moves a unit vector.

    At most 2 ‖UₐᵀU_b‖₂ · 2 sin(θₐ/2) · 2 sin(θ_b/2) with U the moved directions and θ the largest
    angles; zero for rotations of orthogonal spaces. Rotations of different sides always commute.
    """
    q_a, q_b = _joint(a, b)
    return _norm(q_a @ q_b - q_b @ q_a)


def principal_angles(a: Sequence[Turn], b: Sequence[Turn]) -> tuple[float, ...]:
    """Return the angles in radians, descending, between the spaces that a and b move.

    The space that R moves is the range of R − I. The angles are arccos σᵢ(UₐᵀU_b) for orthonormal
    bases U, as many as the smaller space has dimensions; small ones are taken from the sine
    (Knyazev and Argentati 2002). Empty where one of them moves nothing.
    """
    moved = [(_range(one), _range(two)) for one, two in zip(*_joint(a, b), strict=True)]
    found = [
        float(angle)
        for one, two in moved
        if one.shape[1] and two.shape[1]
        for angle in scipy.linalg.subspace_angles(one.cpu().numpy(), two.cpu().numpy())
    ]
    # Directions without a partner in their own block are orthogonal to those of all others.
    sizes = [sum(part[i].shape[1] for part in moved) for i in (0, 1)]
    found += [math.pi / 2] * (min(sizes) - len(found))
    return tuple(sorted(found, reverse=True))


def _joint(a: Sequence[Turn], b: Sequence[Turn]) -> tuple[Tensor, Tensor]:
    """Return Qₐ and Q_b (blocks, m, m) on one basis, a single block for low-rank rotations."""
    found = sorted({(turn.side, turn.size) for turn in (*a, *b)})
    if len(found) > 1:
        words = " and ".join(f"{side} {size}" for side, size in found)
        raise InvariantError(f"rotations of different sides or sizes have no distance: {words}")
    if not found:
        nothing = torch.zeros(1, 0, 0, dtype=torch.float64)
        return nothing, nothing
    blocks = [turn for turn in (*a, *b) if isinstance(turn, RotationBlocks)]
    if len(blocks) == len(a) + len(b) and len({turn.block_size for turn in blocks}) == 1:
        first, second = blocks[: len(a)], blocks[len(a) :]
        return _block_product(first, blocks[0]), _block_product(second, blocks[0])
    cores = [in_order(a), in_order(b)]
    basis = joint_basis([core for part in cores for core in part])
    return product_in(basis, cores[0])[None], product_in(basis, cores[1])[None]


def _block_product(turns: Sequence[RotationBlocks], like: RotationBlocks) -> Tensor:
    """Return the product (b, n, n) of rotations whose blocks are those of `like`."""
    n = like.block_size
    total = torch.eye(n, dtype=torch.float64, device=like.s.device).expand(like.blocks, n, n)
    for turn in turns:
        total = total @ turn.matrices() if like.side == "input" else turn.matrices() @ total
    return total


def _range(q: Tensor) -> Tensor:
    """Return an orthonormal basis (m, k) of the range of Q − I."""
    eye = torch.eye(len(q), dtype=q.dtype, device=q.device)
    vectors, values, _ = torch.linalg.svd(q - eye)
    moved: Tensor = vectors[:, values > MOVING]
    return moved


def _norm(matrices: Tensor) -> float:
    """Return the largest spectral norm of some matrices (blocks, m, m)."""
    if not matrices.numel():
        return 0.0
    return float(torch.linalg.matrix_norm(matrices, ord=2).max())
