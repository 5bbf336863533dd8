"""Fewer factors with the same action: neighbours on one side become one, small planes go.

The result is again orthogonal to rounding, whatever was left out. How far it can be from the list
it stands for is a bound on spectral norms, computed from what was left out and rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from patchkit.factors import Side
from patchkit.factors.algebra import DENSE_LIMIT, in_order, product
from patchkit.factors.blocks import RotationBlocks, blocks_from_matrices, pack
from patchkit.factors.core import logarithm
from patchkit.factors.kinds import Factor, Turn
from patchkit.factors.rotation import Rotation, rotation_from_core

TOLERANCE = 1e-6
"""Angle in radians below which a plane is left out, unless told otherwise."""

COMPRESSED = "compressed"
"""Key of a patch's recipe under which compressions stand, beside the settings of an edit."""

ARITHMETIC = 1e-12
"""Bound on what fp64 arithmetic adds to the error for each rotation that is merged."""


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """Factors that act as a longer list did.

    The rotations of each side together are within `bound` of the list's in spectral norm, so that
    ‖W′ − W″‖ ≤ bound · ‖W‖ for any norm that singular values define, where nothing is added to W.
    """

    factors: tuple[Factor, ...]
    bound: float


def compress(factors: Sequence[Factor], *, tolerance: float = TOLERANCE) -> Compressed:
    """Merge neighbouring rotations of one side and leave out planes of less than `tolerance`.

    Rotations of different sides commute, so between two additive factors at most one of each side
    is left, or one for each change between low-rank ones and ones in blocks. A rotation that has
    no neighbour and no small plane keeps its bytes. Results have the widest type of what they
    replace. Cost: O(d m² + m³) with m twice the number of planes, at most d.
    """
    merged: list[Factor] = []
    bound = 0.0
    for group in _groups(factors):
        factor, error = _merged(group, tolerance)
        bound += error
        if factor is not None:
            merged.append(factor)
    return Compressed(tuple(merged), bound)


def from_product(
    basis: Tensor, q: Tensor, side: Side, *, tolerance: float, dtype: torch.dtype
) -> tuple[Turn | None, float]:
    """Return I + B (Q − I) Bᵀ in the smaller of its two forms, and a bound on its error.

    The form is a generator of r planes or, where r > (d − 1)/4 and d ≤ 4096, one block. None
    where no plane turns by `tolerance`.
    """
    exact = rotation_from_core(basis, logarithm(q), side, tolerance=tolerance, dtype=torch.float64)
    dropped = 2 * math.sin(tolerance / 2)
    if not exact.rank:
        return None, dropped
    if 4 * exact.rank > exact.size - 1 and exact.size <= DENSE_LIMIT:
        whole = exact.x @ exact.y.T  # (d, d)
        return _one_block(whole - whole.T, side, dtype, dropped)
    stored = Rotation(side, exact.x.to(dtype), exact.y.to(dtype))
    dx, dy = stored.x - exact.x, stored.y - exact.y
    # ‖exp(A) − exp(A′)‖ ≤ ‖A − A′‖ for skew A, with A − A′ = M − Mᵀ and M = δX Yᵀ + X′ δYᵀ.
    rounded = 2 * (_norm(dx) * _norm(exact.y) + _norm(stored.x) * _norm(dy))
    return stored, dropped + rounded


def _one_block(
    skew: Tensor, side: Side, dtype: torch.dtype, error: float
) -> tuple[RotationBlocks, float]:
    exact = pack(skew[None])
    stored = RotationBlocks(side, exact.to(dtype))
    return stored, error + _norm(stored.generators()[0] - skew)


def _groups(factors: Sequence[Factor]) -> Iterable[Sequence[Factor]]:
    """Yield the factors that become one, in the order in which the results act."""
    for turning, run in groupby(factors, lambda factor: isinstance(factor, Turn)):
        ordered = list(run)
        if not turning:
            yield from ([factor] for factor in ordered)
            continue
        turns = [factor for factor in ordered if isinstance(factor, Turn)]
        for side in ("input", "output"):
            same = [turn for turn in turns if turn.side == side]
            yield from (list(group) for _, group in groupby(same, _form))


def _form(turn: Turn) -> int:
    """Return what rotations that can be merged share: the size of their blocks, 0 for none."""
    return turn.block_size if isinstance(turn, RotationBlocks) else 0


def _merged(group: Sequence[Factor], tolerance: float) -> tuple[Factor | None, float]:
    """Return one factor for a group, None for the identity, and a bound on the error."""
    rotations = [factor for factor in group if isinstance(factor, Rotation)]
    if rotations:
        return _merged_rotations(rotations, tolerance)
    blocks = [factor for factor in group if isinstance(factor, RotationBlocks)]
    if len(blocks) > 1:
        return _merged_blocks(blocks)
    return group[0], 0.0


def _merged_rotations(group: Sequence[Rotation], tolerance: float) -> tuple[Turn | None, float]:
    if len(group) == 1 and bool((group[0].angles() >= tolerance).all()):
        return group[0], 0.0
    basis, q = product(in_order(group))
    dtype = _widest(rotation.x for rotation in group)
    turn, error = from_product(basis, q, group[0].side, tolerance=tolerance, dtype=dtype)
    return turn, error + ARITHMETIC * len(group)


def _merged_blocks(group: Sequence[RotationBlocks]) -> tuple[RotationBlocks, float]:
    side = group[0].side
    total = group[0].matrices()  # (b, n, n)
    for turn in group[1:]:
        total = total @ turn.matrices() if side == "input" else turn.matrices() @ total
    exact = blocks_from_matrices(total, side, dtype=torch.float64)
    stored = RotationBlocks(side, exact.s.to(_widest(turn.s for turn in group)))
    gap = stored.generators() - exact.generators()
    return stored, max(_norm(block) for block in gap) + ARITHMETIC * len(group)


def _widest(tensors: Iterable[Tensor]) -> torch.dtype:
    return max((t.dtype for t in tensors), key=lambda dtype: dtype.itemsize)


def _norm(matrix: Tensor) -> float:
    if not matrix.numel():
        return 0.0
    return float(torch.linalg.matrix_norm(matrix.to(torch.float64), ord=2))
