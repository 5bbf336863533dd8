"""What the factors alone promise about every singular value of every weight.

With BᵀB = I + E₁ and QᵀQ = I + E₂, R = I + B (Q − I) Bᵀ has ‖RᵀR − I‖ ≤ (1 + ‖E₁‖)(‖E₂‖ +
‖Q − I‖² ‖E₁‖) = e, and each singular value of W R lies within √(1 ± e) of that of W. Derived in
`docs/mathematics.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt

import torch
from torch import Tensor

from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive
from patchkit.factors.core import Core


def defect(factors: Sequence[Factor]) -> float:
    """Return a bound e on the relative change of every squared singular value.

    Computed in fp64 from the factors as they are applied, O(d r²); infinite for a list with an
    additive factor, which promises nothing. InvariantError for a generator beyond its limits.
    """
    if any(isinstance(factor, Additive) for factor in factors):
        return inf
    cores = (factor.core() for factor in factors if not isinstance(factor, Additive))
    return prod((1 + core_defect(core) for core in cores), start=1.0) - 1


def core_defect(core: Core) -> float:
    """Return the bound of one rotation."""
    basis = _distance_to_identity(core.basis.T @ core.basis)
    turn = _distance_to_identity(core.q.T @ core.q)
    return (1 + basis) * (turn + _distance_to_identity(core.q) ** 2 * basis)


def norm_bound(e: float) -> float:
    """Bound on the relative change of any norm that singular values define."""
    return sqrt(1 + e) - 1


def condition_bound(e: float) -> float:
    """Bound on the relative change of the condition number; infinite from e = 1 on."""
    return sqrt((1 + e) / (1 - e)) - 1 if e < 1 else inf


def _distance_to_identity(m: Tensor) -> float:
    if m.numel() == 0:
        return 0.0
    eye = torch.eye(len(m), dtype=m.dtype, device=m.device)
    return float(torch.linalg.matrix_norm(m - eye, ord=2))
