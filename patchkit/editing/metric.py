"""A symmetric positive definite matrix that grows by a few keys at a time, factorised once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchkit.errors import SolveError

_FLOOR = 1e-7  # of the largest eigenvalue: what is left of small ones in an fp32 moment is noise
_ABSORB = 4  # columns go into the decomposition when they are a quarter of its size


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A = L Lᵀ + L H Hᵀ Lᵀ in fp64: a decomposed part and columns added since.

    `factor` L (d, d) is lower triangular, `recent` H (d, h) is L⁻¹ of the added columns. Solving
    with n columns costs O(d² n) and O(d h n); a new decomposition is due every d/4 columns only.
    """

    factor: Tensor
    recent: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Metric:
        """Decompose a symmetric matrix (d, d) that is at least positive semidefinite.

        Where it is singular to working precision, 1e-7 of its largest eigenvalue is added to all.
        Raises SolveError where that does not help.
        """
        matrix = matrix.double()
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            floor = _FLOOR * float(torch.linalg.matrix_norm(matrix, ord=2))
            raised = matrix + floor * torch.eye(
                len(matrix), dtype=matrix.dtype, device=matrix.device
            )
            factor, failed = torch.linalg.cholesky_ex(raised)
        if int(failed):
            raise SolveError(
                f"a moment of {len(matrix)} inputs is not positive definite",
                hint="preserve more text, with --corpus or corpus_rows in a recipe",
            )
        return cls(factor, factor.new_zeros(len(factor), 0))

    @classmethod
    def identity(cls, size: int, scale: float, like: Tensor) -> Metric:
        """Return `scale` times the identity (size, size) on the device of `like`."""
        eye = torch.eye(size, dtype=torch.float64, device=like.device)
        return cls(scale**0.5 * eye, eye.new_zeros(size, 0))

    def solve(self, columns: Tensor) -> Tensor:
        """Return A⁻¹ columns for columns (d, n)."""
        found = torch.linalg.solve_triangular(self.factor, columns.double(), upper=False)
        if self.recent.shape[1]:
            inner = self.recent.T @ self.recent
            inner.diagonal().add_(1.0)  # I + HᵀH (h, h)
            found = found - self.recent @ torch.linalg.solve(inner, self.recent.T @ found)
        solved: Tensor = torch.linalg.solve_triangular(self.factor.T, found, upper=True)
        return solved

    def plus(self, columns: Tensor) -> Metric:
        """Return A + columns columnsᵀ for columns (d, n)."""
        more = torch.linalg.solve_triangular(self.factor, columns.double(), upper=False)
        grown = replace(self, recent=torch.cat([self.recent, more], dim=1))
        if _ABSORB * grown.recent.shape[1] < len(self.factor):
            return grown
        left = torch.cat([self.factor, self.factor @ grown.recent], dim=1)
        return Metric.of(left @ left.T)
