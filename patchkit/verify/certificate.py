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

from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.core import Core
from patchkit.factors.kinds import Factor, Turn
from patchkit.factors.rotation import Rotation


def defect(factors: Sequence[Factor]) -> float:
    """Return a bound e on the relative change of every squared singular value.

    Computed in fp64 from the factors as they are applied, O(d r²), or O(d n²) for blocks of n;
    infinite for a list with an additive factor, which promises nothing. InvariantError for a
    generator beyond its limits.
    """
    turns = [f for f in factors if not isinstance(f, Additive | AdditiveDense)]
    if len(turns) < len(factors):
        return inf
    return prod((1 + _turn_defect(turn) for turn in turns), start=1.0) - 1


def _turn_defect(turn: Turn) -> float:
    if isinstance(turn, Rotation):
        return core_defect(turn.core())
    return blocks_defect(turn.matrices())


def core_defect(core: Core) -> float:
    """Return the bound of one rotation."""
    basis = _distance_to_identity(core.basis.T @ core.basis)
    turn = _distance_to_identity(core.q.T @ core.q)
    return (1 + basis) * (turn + _distance_to_identity(core.q) ** 2 * basis)


def blocks_defect(q: Tensor) -> float:
    """Return the bound of blockdiag(Q₁, …), the largest of ‖QᵢᵀQᵢ − I‖_F; `q` is (b, n, n)."""
    eye = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    return max(float(torch.linalg.matrix_norm(block.T @ block - eye)) for block in q)


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
