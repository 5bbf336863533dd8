"""One matrix of two checkpoints, read in blocks of rows and never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

from patchkit.factors import Layout, Side
from patchkit.factors.streaming import stored_rows
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import spacing, torch_dtype


@dataclass(frozen=True, slots=True)
class Pair:
    """A stored matrix V (rows, columns) and V″ of the same shape, of any types."""

    base: Checkpoint
    edited: Checkpoint
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as stored."""
        rows, columns = self.base.tensor(self.name).info.shape
        return rows, columns

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the first row, V and V″ − V (n, columns) in fp64."""
        sides = (stored_rows(each, self.name) for each in (self.base, self.edited))
        pairs = zip(*sides, strict=True)
        for (start, old), (_, new) in pairs:
            values = old.to(torch.float64)
            yield start, values, new.to(torch.float64) - values

    def sizes(self) -> Sizes:
        """Return the norms, in one pass."""
        kind = torch_dtype(self.edited.tensor(self.name).info.dtype)
        weight = change = noise = 0.0
        for _, values, delta in self.blocks():
            weight += float(values.square().sum())
            change += float(delta.square().sum())
            noise += float(spacing(values + delta, kind).square().sum()) / 12
        return Sizes(weight, change, noise, prod(self.shape))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sums of squares: of W, of W″ − W, and of what rounding W″ once is expected to add.

    Rounding errors are taken as uniform over one unit in the last place, a variance of ulp²/12.
    """

    weight: float
    change: float
    noise: float
    entries: int

    @property
    def variance(self) -> float:
        """Mean square of the rounding of one entry."""
        return self.noise / self.entries

    def edge(self, rows: int, columns: int) -> float:
        """Return the largest singular value of rounding alone, σ (√rows + √columns)."""
        return sqrt(self.variance) * (sqrt(rows) + sqrt(columns))


@dataclass(frozen=True, slots=True)
class Turned:
    """A pair seen from the side that is turned: A (n, d) with A″ ≈ A R̃, d the turned side.

    A is W with R̃ = R for the input side, and Wᵀ with R̃ = Rᵀ for the output side.
    """

    pair: Pair
    side: Side
    layout: Layout

    @property
    def along_columns(self) -> bool:
        """Whether the turned side are the columns of the stored matrix."""
        return (self.side == "input") == (self.layout == "linear")

    @property
    def size(self) -> int:
        """Length d of the turned side."""
        return self.pair.shape[1 if self.along_columns else 0]

    def across(self, x: Tensor) -> Tensor:
        """Return A X (n, k) for X (d, k)."""
        return self._products(x) if self.along_columns else self._sums(x)

    def back(self, y: Tensor) -> Tensor:
        """Return Aᵀ Y (d, k) for Y (n, k)."""
        return self._sums(y) if self.along_columns else self._products(y)

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return HᵀH and HᵀΔ (m, m) with H = A Z and Δ = (A″ − A) Z for Z (d, m)."""
        if not self.along_columns:
            seen, moved = self._sums(z), self._sums(z, of_change=True)
            return seen.T @ seen, seen.T @ moved
        gram, cross = z.new_zeros(2, z.shape[1], z.shape[1])
        for _, values, delta in self.pair.blocks():
            seen = values @ z
            gram.addmm_(seen.T, seen)
            cross.addmm_(seen.T, delta @ z)
        return gram, cross

    def _products(self, x: Tensor) -> Tensor:
        """Return V X (rows, k) for X (columns, k)."""
        return torch.cat([values @ x for _, values, _ in self.pair.blocks()])

    def _sums(self, y: Tensor, *, of_change: bool = False) -> Tensor:
        """Return Vᵀ Y, or (V″ − V)ᵀ Y, (columns, k) for Y (rows, k)."""
        total = y.new_zeros(self.pair.shape[1], y.shape[1])
        for start, values, delta in self.pair.blocks():
            block = delta if of_change else values
            total.addmm_(block.T, y[start : start + len(block)])
        return total
