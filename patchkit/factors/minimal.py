"""The rotation that does to one matrix what others do, and moves nothing else.

What a rotation does to directions that W does not read (on the output side: does not write to)
changes no weight. The k ≤ min(d_out, d_in) others need no more than k planes, however many edits
went before, so that a generator holds at most twice as many numbers as the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchkit.factors.action import dense
from patchkit.factors.core import logarithm
from patchkit.factors.rotation import Rotation, rotation_from_core


def planes_needed(d_out: int, d_in: int, size: int) -> int:
    """Return how many planes of a side of `size` any rotation of a (d_out, d_in) matrix needs."""
    return min(d_out, d_in, size // 2)


def minimal(rotations: Sequence[Rotation], weight: Tensor) -> Rotation:
    """Return the rotation of at most k = min(d_out, d_in) planes that acts on W as `rotations` do.

    `weight` W is (d_out, d_in), what the first of the rotations acts on; they are of one side and
    act one after another. With F (d, k) an orthonormal basis of W's rows (output side: columns) and
    F′ where the rotations take it, T = F′Fᵀ + E′K Eᵀ on span(F, F′), E and E′ bases of what is left
    of that space and K = polar(E′ᵀE): of all rotations with T F = F′ the nearest to the identity.
    In fp64, O(d k² + k³); the changed matrix is the same to rounding, for this W and no other.
    """
    side = rotations[0].side
    across = weight.double().T if side == "input" else weight.double()  # (d, ·)
    frame = torch.linalg.qr(across)[0]  # (d, k)
    moved = _moved(frame, rotations)  # (d, k)
    basis = torch.linalg.qr(torch.cat([frame, moved], dim=1))[0]  # (d, m), m ≤ 2k
    turn = _least_turn(basis.T @ frame, basis.T @ moved)  # (m, m)
    q = turn.T if side == "input" else turn
    return rotation_from_core(basis, logarithm(q), side, dtype=torch.float64)


def _moved(frame: Tensor, rotations: Sequence[Rotation]) -> Tensor:
    """Return where columns (d, k) of the turned side go: R W moves W's columns, W R its rows."""
    if rotations[0].side == "input":
        return dense(frame.T, rotations, "linear").T
    return dense(frame, rotations, "linear")


def _least_turn(one: Tensor, two: Tensor) -> Tensor:
    """Return the rotation T (m, m) nearest to I with T F = F′, for orthonormal columns (m, k).

    A determinant of −1 is mended in the plane where that costs least.
    """
    k = one.shape[1]
    rest_one = torch.linalg.qr(one, mode="complete")[0][:, k:]  # (m, m − k)
    rest_two = torch.linalg.qr(two, mode="complete")[0][:, k:]
    left, _, right = torch.linalg.svd(rest_two.T @ rest_one)
    fixed = two @ one.T
    turn: Tensor = fixed + rest_two @ (left @ right) @ rest_one.T
    if k < len(turn) and torch.linalg.det(turn) < 0:
        left[:, -1] *= -1
        turn = fixed + rest_two @ (left @ right) @ rest_one.T
    return turn
