"""Singular values of whole matrices, for those who may look at them."""

from __future__ import annotations

from math import inf, nan

import torch
from torch import Tensor


def condition(matrix: Tensor) -> float:
    """Return the condition number κ₂ = σ₁ / σₙ of a matrix (d_out, d_in); O(d³) in fp64.

    Infinite without full rank, not a number where the matrix holds infinities or NaN.
    """
    if not bool(torch.isfinite(matrix).all()):
        return nan
    values = torch.linalg.svdvals(matrix.to(torch.float64))
    least = float(values[-1])
    return float(values[0]) / least if least > 0 else inf
