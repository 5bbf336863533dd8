"""A low-rank sum: W + l f, the form of every additive editing method.

It changes norms and singular values; it exists so that such methods go through the same file,
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
