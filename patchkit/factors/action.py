"""An ordered list of factors as one operation on the rows of a file.

Any list of rotations of both sides and additive factors amounts to W′ = L W R + P F with
L = I + Bₗ Mₗ Bₗᵀ, R = I + Bᵣ Mᵣ Bᵣᵀ and P F of low rank. On a conv1d layout the file holds Wᵀ, so
L and R change places and are transposed. A tensor can therefore be read, changed and written in
blocks of rows as they lie in the file. Only a rotation that mixes rows needs to see all of them
first: `prepass` collects BᵀV, which has as many rows as the rotation has dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors import Layout
from patchkit.factors.additive import Additive
from patchkit.factors.core import Core
from patchkit.factors.rotation import Rotation

Factor: TypeAlias = Rotation | Additive


@dataclass(frozen=True, slots=True, eq=False)
class Mixing:
    """I + B M Bᵀ, a product of rotations of one side. B (d, m) need not be orthonormal."""

    basis: Tensor
    middle: Tensor

    @classmethod
    def of(cls, core: Core) -> Mixing:
        """Return one rotation in this form."""
        return cls(core.basis, core.turn)

    @property
    def transposed(self) -> Mixing:
        """Return I + B Mᵀ Bᵀ."""
        return replace(self, middle=self.middle.T)

    def times(self, other: Mixing) -> Mixing:
        """Return the product of this and `other`, on the concatenated bases."""
        m, k = len(self.middle), len(other.middle)
        middle = self.middle.new_zeros(m + k, m + k)
        middle[:m, :m] = self.middle
        middle[:m, m:] = self.middle @ (self.basis.T @ other.basis) @ other.middle
        middle[m:, m:] = other.middle
        return Mixing(torch.cat([self.basis, other.basis], dim=1), middle)

    def left(self, w: Tensor) -> Tensor:
        """Return (I + B M Bᵀ) W."""
        return w + self.basis @ (self.middle @ (self.basis.T @ w))

    def right(self, w: Tensor) -> Tensor:
        """Return W (I + B M Bᵀ)."""
        return torch.addmm(w, (w @ self.basis) @ self.middle, self.basis.T)


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """W′ = L W R + P F. Absent parts are None; `tall` P (rows, s), `wide` F (s, columns)."""

    left: Mixing | None = None
    right: Mixing | None = None
    tall: Tensor | None = None
    wide: Tensor | None = None

    def then(self, factor: Factor) -> Normal:
        """Return this operation followed by one more factor."""
        if isinstance(factor, Additive):
            return self._plus(factor.l.to(torch.float64), factor.f.to(torch.float64))
        turn = Mixing.of(factor.core())
        if factor.side == "input":
            wide = self.wide if self.wide is None else turn.right(self.wide)
            return replace(self, right=self.right.times(turn) if self.right else turn, wide=wide)
        tall = self.tall if self.tall is None else turn.left(self.tall)
        return replace(self, left=turn.times(self.left) if self.left else turn, tall=tall)

    def _plus(self, tall: Tensor, wide: Tensor) -> Normal:
        if self.tall is None or self.wide is None:
            return replace(self, tall=tall, wide=wide)
        return replace(
            self, tall=torch.cat([self.tall, tall], dim=1), wide=torch.cat([self.wide, wide], dim=0)
        )

    @property
    def transposed(self) -> Normal:
        """Return the same operation on Wᵀ."""
        return Normal(
            left=self.right.transposed if self.right else None,
            right=self.left.transposed if self.left else None,
            tall=None if self.wide is None else self.wide.T,
            wide=None if self.tall is None else self.tall.T,
        )


class Action:
    """Factors acting on one stored matrix V (rows, columns), block of rows by block of rows.

    Where `needs_prepass`, give every row to `prepass` exactly once before the first `rows`. All
    arithmetic is fp64; what `prepass` keeps is (m, columns), m the dimensions that mix rows.
    """

    def __init__(self, normal: Normal) -> None:
        """Take an operation that is already oriented as the file is."""
        self.normal = normal
        self._gathered: Tensor | None = None
        self._seen = 0
        self._lift: Tensor | None = None

    @classmethod
    def of(
        cls, factors: Sequence[Factor], layout: Layout, *, device: torch.device | str = "cpu"
    ) -> Action:
        """Return the action of an ordered list; InvariantError if a generator breaks its limits."""
        normal = Normal()
        for factor in factors:
            _check_sizes(normal, factor)
            normal = normal.then(_moved(factor, device))
        return cls(normal.transposed if layout == "conv1d" else normal)

    @property
    def needs_prepass(self) -> bool:
        """True when rows of the file are mixed with each other."""
        return self.normal.left is not None

    def prepass(self, row_start: int, rows: Tensor) -> None:
        """Take rows V[row_start : row_start + n] (n, columns) into account; each exactly once."""
        if self.normal.left is None:
            return
        basis = self.normal.left.basis
        if self._gathered is None:
            self._gathered = basis.new_zeros(basis.shape[1], rows.shape[1])
        self._gathered.addmm_(basis[row_start : row_start + len(rows)].T, rows.to(torch.float64))
        self._seen += len(rows)
        self._lift = None

    def rows(self, row_start: int, rows: Tensor) -> Tensor:
        """Return the new rows (n, columns) in fp64.

        InvariantError if the prepass has not seen all rows, or the shape does not fit the factors.
        """
        new = rows.to(torch.float64)
        normal, end = self.normal, row_start + len(rows)
        if normal.left is not None:
            new = new + normal.left.basis[row_start:end] @ self._mixed(normal.left)
        if normal.right is not None:
            new = normal.right.right(new)
        if normal.tall is not None and normal.wide is not None:
            new = new + normal.tall[row_start:end] @ normal.wide
        return new

    def _mixed(self, left: Mixing) -> Tensor:
        """Return M BᵀV (m, columns)."""
        if self._gathered is None or self._seen != len(left.basis):
            raise InvariantError(
                f"rows are mixed by a rotation of {len(left.basis)} rows, "
                f"but the prepass has seen {self._seen}"
            )
        if self._lift is None:
            self._lift = left.middle @ self._gathered
        return self._lift


def dense(weight: Tensor, factors: Sequence[Factor], layout: Layout) -> Tensor:
    """Return the changed matrix in fp64, stored as `weight` is, on the weight's device."""
    action = Action.of(factors, layout, device=weight.device)
    action.prepass(0, weight)
    return action.rows(0, weight)


def _moved(factor: Factor, device: torch.device | str) -> Factor:
    if isinstance(factor, Additive):
        return replace(factor, l=factor.l.to(device), f=factor.f.to(device))
    return replace(factor, x=factor.x.to(device), y=factor.y.to(device))


def _check_sizes(normal: Normal, factor: Factor) -> None:
    """InvariantError if a factor is for another (d_out, d_in) than those before it."""
    d_out, d_in = _sizes(factor)
    for known, size, side in (
        (_rows_of(normal), d_out, "output"),
        (_columns_of(normal), d_in, "input"),
    ):
        if known is not None and size is not None and known != size:
            raise InvariantError(
                f"factors of one tensor differ in their {side} size: {known} and {size}"
            )


def _sizes(factor: Factor) -> tuple[int | None, int | None]:
    if isinstance(factor, Additive):
        return factor.l.shape[0], factor.f.shape[1]
    return (None, factor.size) if factor.side == "input" else (factor.size, None)


def _rows_of(normal: Normal) -> int | None:
    if normal.left is not None:
        return len(normal.left.basis)
    return None if normal.tall is None else len(normal.tall)


def _columns_of(normal: Normal) -> int | None:
    if normal.right is not None:
        return len(normal.right.basis)
    return None if normal.wide is None else normal.wide.shape[1]
