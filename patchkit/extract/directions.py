"""Where a change of a matrix lies: its dominant singular directions, by subspace iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.extract.pair import Pair, Turned

FIRST = 32
"""Directions that are looked at first; twice as many each time until they are enough."""

_ROUNDS = 3
_PRECISION = 1e-12  # of the largest singular value, below which fp64 tells none
_SAME = 1e-10  # of its own length, what a new column must have outside the directions before it


@dataclass(frozen=True, slots=True, eq=False)
class Dominant:
    """Singular directions of Δ (rows, columns): `left` (rows, k), `values` (k,), `right`."""

    left: Tensor
    values: Tensor
    right: Tensor


def dominant(pair: Pair, most: int, floor: float) -> Dominant:
    """Return at most `most` singular directions of the change, those with values above `floor`.

    Halko, Martinsson and Tropp 2011 with three rounds of power iteration, on twice as many random
    directions each time until one falls below the floor. The same every time.
    """
    rows, columns = pair.shape
    generator = torch.Generator().manual_seed(0)
    wide = min(FIRST, most, rows, columns)
    right = torch.zeros(columns, 0, dtype=torch.float64)
    while True:
        fresh = torch.randn(
            columns, wide - right.shape[1], generator=generator, dtype=torch.float64
        )
        right = torch.linalg.qr(torch.cat([right, fresh], dim=1))[0]
        for _ in range(_ROUNDS):
            right = torch.linalg.qr(_squared(pair, right))[0]
        left, values, inner = torch.linalg.svd(_changed(pair, right), full_matrices=False)
        right = right @ inner.T
        floor = max(floor, _PRECISION * float(values[0]))
        if float(values[-1]) <= floor or wide == min(most, rows, columns):
            break
        wide = min(2 * wide, most, rows, columns)
    keep = int((values > floor).sum())
    return Dominant(left[:, :keep], values[:keep], right[:, :keep])


def _changed(pair: Pair, x: Tensor) -> Tensor:
    """Return Δ X (rows, k)."""
    return torch.cat([delta @ x for _, _, delta in pair.blocks()])


def _squared(pair: Pair, x: Tensor) -> Tensor:
    """Return ΔᵀΔ X (columns, k), in one pass."""
    total = torch.zeros_like(x)
    for _, _, delta in pair.blocks():
        total.addmm_(delta.T, delta @ x)
    return total


def first(turned: Turned, change: Dominant) -> tuple[Tensor, Tensor]:
    """Return the directions (d, k) of a change on the turned side, and those that it lands in.

    To first order a rotation exp(Ω) changes A by AΩ, and the gradient of ‖A″ − A exp(Ω)‖² at 0 is
    ΔᵀA − AᵀΔ, which lies in the span of both.
    """
    near, far = change.right, change.left
    if not turned.along_columns:
        near, far = far, near
    return near, turned.back(far)


def extended(basis: Tensor, more: Tensor, most: int) -> Tensor:
    """Return an orthonormal basis (d, m) that also spans `more` (d, k), with m ≤ most."""
    lengths = torch.linalg.vector_norm(more, dim=0)
    more = more[:, lengths > 0] / lengths[lengths > 0]
    for _ in range(2):  # twice is enough (Kahan, Parlett)
        more = more - basis @ (basis.T @ more)
    outer, corner = torch.linalg.qr(more)
    left, values, _ = torch.linalg.svd(corner)
    fresh = outer @ left[:, values > _SAME]
    return torch.cat([basis, fresh[:, : max(0, most - basis.shape[1])]], dim=1)
