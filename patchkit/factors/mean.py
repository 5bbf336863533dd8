"""One rotation in the middle of several.

Means do not depend on an order. Both are computed in fp64 inside the span of all rotations
together, and are products of nothing: a mean of rotations is a rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.errors import InvariantError, SolveError
from patchkit.factors.algebra import in_order, joint_basis, product_in
from patchkit.factors.core import logarithm
from patchkit.factors.kinds import Turn

STEPS = 500
"""Most steps of the iteration for a Karcher mean."""

PRECISION = 1e-10
"""Length of the mean remaining rotation in radians at which that iteration has arrived."""


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """The rotation I + B (Q − I) Bᵀ: `basis` B (d, m), `q` Q (m, m).

    `steps` were needed, and `residual` is ‖Σ log(QᵀQᵢ)‖_F / n in radians where they ended; both
    are 0 for a mean that needs no iteration.
    """

    basis: Tensor
    q: Tensor
    steps: int = 0
    residual: float = 0.0


def lie_mean(products: Sequence[Sequence[Turn]]) -> Mean:
    """Return exp(c Σ log(Rᵢ)), with c such that its length is the mean length of the Rᵢ.

    Each item is a list of rotations of one side that stands for its product, empty for the
    identity. Generators that point in different directions shorten their plain mean, by 1/√n when
    they are orthogonal; c undoes that (magnitude correction, OrthoMerge, arXiv 2602.05943). Raises
    SolveError where the generators cancel, so that their mean has no direction, and InvariantError
    when all lists are empty or sides or sizes differ.
    """
    basis, matrices = _joint(products)
    generators = [logarithm(q) for q in matrices]
    total = torch.stack(generators).sum(0)
    total = (total - total.T) / 2  # a small sum is scaled up below, and so would its rounding be
    lengths = sum(float(torch.linalg.matrix_norm(skew)) for skew in generators)
    length = float(torch.linalg.matrix_norm(total))
    if length <= 1e-6 * lengths:
        if lengths > 0.0:
            raise SolveError(
                "the rotations cancel each other, so their mean has no direction",
                hint="compose them in order instead, or choose another method",
            )
        return Mean(basis, matrices[0])
    scaled = total * (lengths / len(generators) / length)
    return Mean(basis, torch.linalg.matrix_exp(scaled))


def karcher_mean(products: Sequence[Sequence[Turn]]) -> Mean:
    """Return the rotation with the least sum of squared geodesic distances to all Rᵢ.

    The iteration M ← M exp(Σ log(MᵀRᵢ) / n) starts at the mean of the generators and ends when
    the exponent is shorter than 1e-10 radians. The mean is unique where all Rᵢ lie within π/2 of
    one rotation (Karcher 1977); SolveError where it does not settle in 500 steps. Arguments and
    other errors as in `lie_mean`.
    """
    basis, matrices = _joint(products)
    stacked = torch.stack(matrices)  # (n, m, m)
    mean = torch.linalg.matrix_exp(torch.stack([logarithm(q) for q in matrices]).mean(0))
    residual = float("inf")
    for step in range(STEPS):
        remaining = torch.stack([logarithm(q) for q in mean.T @ stacked]).mean(0)
        remaining = (remaining - remaining.T) / 2
        residual = float(torch.linalg.matrix_norm(remaining))
        if residual <= PRECISION:
            return Mean(basis, mean, step, residual)
        mean = mean @ torch.linalg.matrix_exp(remaining)
    raise SolveError(
        f"the Karcher mean has not settled after {STEPS} steps: {residual:.3g} radians remain",
        hint="the rotations are too far apart for one middle; use the mean of their generators",
        details={"found": residual, "expected": PRECISION},
    )


def _joint(products: Sequence[Sequence[Turn]]) -> tuple[Tensor, list[Tensor]]:
    """Return one basis (d, m) and each product on it (m, m)."""
    found = sorted({(turn.side, turn.size) for turns in products for turn in turns})
    if len(found) != 1:
        words = " and ".join(f"{side} {size}" for side, size in found) or "no rotation"
        raise InvariantError(f"a mean needs rotations of one side and one size, not {words}")
    cores = [in_order(turns) for turns in products]
    basis = joint_basis([core for part in cores for core in part])
    return basis, [product_in(basis, part) for part in cores]
