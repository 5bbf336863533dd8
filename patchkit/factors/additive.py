"""Sums, of low rank W + l f or dense W + D: the form of every additive editing method.

They change norms and singular values; they exist so that such methods go through the same file,
apply and measurements as rotations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from patchkit.errors import InvariantError


@dataclass(frozen=True, slots=True, eq=False)
class Additive:
    """W + l f. Shapes: `l` (d_out, r), `f` (r, d_in)."""

    kind: ClassVar[Literal["additive"]] = "additive"

    l: Tensor  # noqa: E741
    f: Tensor

    def __post_init__(self) -> None:
        """InvariantError unless l and f can be multiplied."""
        if self.l.ndim != 2 or self.f.ndim != 2 or self.l.shape[1] != self.f.shape[0]:
            raise InvariantError(
                "l and f of an additive factor do not fit: "
                f"{tuple(self.l.shape)} and {tuple(self.f.shape)}"
            )

    @property
    def rank(self) -> int:
        """Number of columns of l."""
        return self.l.shape[1]

    def inverse(self) -> Additive:
        """Return the factor that takes this one away."""
        return replace(self, l=-self.l)

    def power(self, alpha: float) -> Additive:
        """Return α l f, in fp64."""
        return replace(self, l=self.l.to(torch.float64) * alpha, f=self.f.to(torch.float64))


@dataclass(frozen=True, slots=True, eq=False)
class AdditiveDense:
    """W + D for a D without structure, as methods leave it that choose single entries (RECT).

    Shape: `d` (d_out, d_in), whatever the layout of the stored weight.
    """

    kind: ClassVar[Literal["additive-dense"]] = "additive-dense"

    d: Tensor

    def __post_init__(self) -> None:
        """InvariantError unless d is a matrix."""
        if self.d.ndim != 2:
            raise InvariantError(f"a dense sum is a matrix, not of shape {tuple(self.d.shape)}")

    @property
    def rank(self) -> int:
        """The shorter side: the most that the rank of d can be."""
        return min(self.d.shape)

    def inverse(self) -> AdditiveDense:
        """Return the factor that takes this one away."""
        return replace(self, d=-self.d)

    def power(self, alpha: float) -> AdditiveDense:
        """Return α D, in fp64."""
        return replace(self, d=self.d.to(torch.float64) * alpha)
