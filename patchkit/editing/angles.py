"""Functions of a Gram matrix that the exponential of a generator is made of.

For `P` with orthonormal columns and `X` orthogonal to it, with `G = XᵀX`, whose eigenvalues are the
squared angles,

    exp(X Pᵀ − P Xᵀ) = I + (P (cos √G − I) + X sinc √G) Pᵀ + (X (cos √G − I)/G − P sinc √G) Xᵀ

(the geodesic of Edelman, Arias and Smith, https://arxiv.org/abs/physics/9806030, §2.5.1). All three
functions are entire in G, so that G may be singular and nothing is taken the root of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

_SMALL: Final = 1e-3  # λ below which series of four terms are exact to working precision
_NEAR: Final = 1e-5  # relative gap below which a divided difference loses more than a derivative


def angles(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `cos √G − I`, `sinc √G` and `(cos √G − I) G⁻¹` of a Gram matrix (r, r), in its type.

    Computed in fp64 from one eigendecomposition; gradients are those of the functions, also where
    eigenvalues coincide.
    """
    turned, slid, bent = _Functions.apply(gram)  # type: ignore[no-untyped-call]
    return turned, slid, bent


def _sinc(x: Tensor) -> Tensor:
    root = x.clamp_min(_SMALL).sqrt()
    series = 1 - x / 6 * (1 - x / 20 * (1 - x / 42))
    return torch.where(x < _SMALL, series, root.sin() / root)


def _bend(x: Tensor) -> Tensor:
    """(cos √x − 1) / x, by the half angle: nothing cancels."""
    half = _sinc(x / 4)
    return -half * half / 2


def _turn(x: Tensor) -> Tensor:
    """cos √x − 1."""
    return x * _bend(x)


def _sinc_slope(x: Tensor) -> Tensor:
    """(cos √x − sinc √x) / 2x."""
    series = -1 / 6 + x / 60 - x**2 / 1680 + x**3 / 90720
    safe = x.clamp_min(_SMALL)
    return torch.where(x < _SMALL, series, (1 + _turn(safe) - _sinc(safe)) / (2 * safe))


def _bend_slope(x: Tensor) -> Tensor:
    """Derivative of the square of a sinc at the half angle."""
    return -_sinc(x / 4) * _sinc_slope(x / 4) / 4


def _turn_slope(x: Tensor) -> Tensor:
    return -_sinc(x) / 2


_PAIRS: Final[tuple[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]], ...]] = (
    (_turn, _turn_slope),
    (_sinc, _sinc_slope),
    (_bend, _bend_slope),
)


class _Functions(torch.autograd.Function):
    """The three functions, with their derivative by Daleckii and Krein (Higham, §3.2)."""

    @staticmethod
    def forward(context: Any, gram: Tensor) -> tuple[Tensor, ...]:
        values, vectors = torch.linalg.eigh(gram.double())
        values = values.clamp_min(0)
        context.save_for_backward(values, vectors)
        return tuple(
            ((vectors * function(values)) @ vectors.T).to(gram.dtype) for function, _ in _PAIRS
        )

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        values, vectors = context.saved_tensors
        total = torch.zeros_like(vectors)
        for (function, slope), given in zip(_PAIRS, slopes, strict=True):
            inside = vectors.T @ given.double() @ vectors
            total += inside * _differences(values, function(values), slope)
        found: Tensor = (vectors @ total @ vectors.T).to(slopes[0].dtype)
        return found


def _differences(values: Tensor, images: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the divided differences (r, r) of a function with these `images` at `values` (r,)."""
    gaps = values[:, None] - values[None, :]
    middle = (values[:, None] + values[None, :]) / 2
    near = gaps.abs() <= _NEAR * (1 + middle)
    steps = (images[:, None] - images[None, :]) / torch.where(near, 1.0, gaps)
    return torch.where(near, slope(middle), steps)
