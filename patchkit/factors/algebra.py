"""The group of rotations of one side: many become one, exactly.

Every product works in the span of the bases involved, so its cost is O(d m² + m³) with m the
number of directions that move, never d³.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.core import Core, logarithm
from patchkit.factors.kinds import Turn
from patchkit.factors.rotation import Rotation, rotation_from_core

DENSE_LIMIT = 4096
"""Longest side on which a rotation in blocks is multiplied with others as a whole matrix."""


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
    basis, q = product(in_order(rotations))
    side = rotations[0].side
    return rotation_from_core(basis, logarithm(q), side, tolerance=tolerance, dtype=dtype)


def in_order(turns: Sequence[Turn]) -> list[Core]:
    """Return the cores as the matrices stand in the product: reversed on the output side.

    Input-side rotations act as W R₁ R₂ …, output-side ones as … R₂ R₁ W. A rotation in blocks
    becomes a core of all d directions; InvariantError if these are more than 4096.
    """
    cores = [_full_core(t) if isinstance(t, RotationBlocks) else t.core() for t in turns]
    return cores[::-1] if turns and turns[0].side == "output" else cores


def product(cores: Sequence[Core]) -> tuple[Tensor, Tensor]:
    """Return a basis (d, m) and Q (m, m) in fp64 with Π (I + Bᵢ(Qᵢ−I)Bᵢᵀ) = I + B(Q−I)Bᵀ.

    Halves are multiplied first: the many products at the leaves of that tree work on the small
    bases of few factors, and rounding grows with the logarithm of the number of factors.
    """
    if len(cores) == 1:
        return cores[0].basis, cores[0].q
    half = len(cores) // 2
    (one, q_one), (two, q_two) = product(cores[:half]), product(cores[half:])
    basis = _span(one, two)
    left, right = basis.T @ one, basis.T @ two  # (m, m₁), (m, m₂)
    total = _embedded(left, q_one)
    return basis, total + ((total @ right) @ _minus_one(q_two)) @ right.T


def joint_basis(cores: Sequence[Core]) -> Tensor:
    """Return one orthonormal basis (d, m), m ≤ min(d, Σ mᵢ), of the spaces of all cores."""
    basis: Tensor = torch.linalg.qr(torch.cat([core.basis for core in cores], dim=1))[0]
    return basis


def product_in(basis: Tensor, cores: Sequence[Core]) -> Tensor:
    """Return Q (m, m) of the product of `cores` on a basis (d, m) that contains theirs."""
    if not cores:
        return torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    own, q = product(cores)
    return _embedded(basis.T @ own, q)


def _full_core(turn: RotationBlocks) -> Core:
    if turn.size > DENSE_LIMIT:
        raise InvariantError(
            f"a rotation in blocks that turns {turn.size} directions can be multiplied with "
            f"others only up to {DENSE_LIMIT}",
            details={"size": turn.size, "limit": DENSE_LIMIT},
        )
    eye = torch.eye(turn.size, dtype=torch.float64, device=turn.s.device)
    return Core(eye, _block_diagonal(turn.generators()), _block_diagonal(turn.matrices()))


def _block_diagonal(blocks: Tensor) -> Tensor:
    """Return the matrix (b n, b n) of diagonal blocks (b, n, n)."""
    b, n, _ = blocks.shape
    whole = blocks.new_zeros(b, n, b, n)
    whole[range(b), :, range(b), :] = blocks
    return whole.reshape(b * n, b * n)


def _span(one: Tensor, two: Tensor) -> Tensor:
    """Return an orthonormal basis of the sum of two spaces, given by orthonormal columns."""
    for basis in (one, two):
        if basis.shape[0] == basis.shape[1]:
            return basis
    joined: Tensor = torch.linalg.qr(torch.cat([one, two], dim=1))[0]
    return joined


def _embedded(inside: Tensor, q: Tensor) -> Tensor:
    """Return I + E (Q − I) Eᵀ (m, m) for orthonormal columns E (m, k) and Q (k, k)."""
    eye = torch.eye(len(inside), dtype=inside.dtype, device=inside.device)
    return eye + inside @ _minus_one(q) @ inside.T


def _minus_one(q: Tensor) -> Tensor:
    return q - torch.eye(len(q), dtype=q.dtype, device=q.device)
