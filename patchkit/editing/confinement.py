"""Which directions of a matrix's input an edit may use, and at what price.

`H = C + ε c̄ I + p Kₚ Kₚᵀ/n` adds up the energy that preserved knowledge and earlier edits have in
every direction. `H⁻¹ k` is the reading direction that a key stands out by: the linear
discriminant between the key and everything preserved. This is the soft form of AlphaEdit's null
space (Fang et al., https://arxiv.org/abs/2410.02355): a hard cut starves a rotation, because it
has to read and to land in what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.editing.state import SiteState

_DEPENDENT = 1e-4  # relative singular value below which columns count as one direction


@dataclass(frozen=True, slots=True, eq=False)
class Confinement:
    """The Cholesky factor of H (d_in, d_in) and the size of its soft floor ε c̄."""

    factor: Tensor
    floor: float

    @classmethod
    def of(cls, state: SiteState, softness: float, history: float = 0.0) -> Confinement:
        """Build H from what `state` has to preserve; fp64 where the matrix is small."""
        moment = state.statistics.moment.double()
        floor = softness * state.statistics.energy
        moment.diagonal().add_(floor)
        if history and len(state.keys):
            keys = state.keys.flatten(0, 1).double()
            moment += history * (keys.T @ keys) / len(keys)
        return cls(torch.linalg.cholesky(moment), floor)

    def free(self, columns: Tensor) -> Tensor:
        """Return H⁻¹ columns (d_in, n) in fp32: what is left of them where nothing is preserved."""
        return torch.cholesky_solve(columns.double(), self.factor).float()

    def share(self, keys: Tensor) -> Tensor:
        """Return the free part of each key's energy, ε c̄ kᵀH⁻¹k / kᵀk, for keys (n, d_in)."""
        energy = (keys * self.free(keys.T).T).sum(1)
        share: Tensor = self.floor * energy / keys.square().sum(1)
        return share


def directions(columns: Tensor) -> Tensor:
    """Return an orthonormal basis (d, m ≤ n) of unit-scaled columns (d, n), near-copies merged."""
    unit = columns / columns.norm(dim=0, keepdim=True).clamp_min(torch.finfo(columns.dtype).tiny)
    left, values, _ = torch.linalg.svd(unit.double(), full_matrices=False)
    kept = values > _DEPENDENT * values[0] if len(values) else values > 0
    basis: Tensor = left[:, kept].to(columns.dtype)
    return basis
