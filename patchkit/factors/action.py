"""An ordered list of factors as one operation on the rows of a file.

The list is brought into closed form (`normal`). On a conv1d layout the file holds Wᵀ, so the two
sides change places and are transposed. A tensor can therefore be read, changed and written in
blocks of rows as they lie in the file. Only a rotation that mixes rows needs to see all of them
first: `prepass` collects BᵀV, which has as many rows as the rotation has dimensions, all of them
for one in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors import Layout
from patchkit.factors.kinds import Factor, mapped, sizes
from patchkit.factors.mixing import Mixing, blocks_left
from patchkit.factors.normal import Normal, Term

__all__ = ["Action", "Factor", "Normal", "dense"]

_CHUNK = 2 << 20  # values of a dense sum that are brought to fp64 at a time
_COLUMNS = 1024


class Action:
    """Factors acting on one stored matrix V (rows, columns), block of rows by block of rows.

    Where `needs_prepass`, give every row to `prepass` exactly once before the first `rows`. All
    arithmetic is fp64; what `prepass` keeps is (m, columns), m the dimensions that mix rows, and
    (rows, columns) where a rotation in blocks mixes them.
    """

    def __init__(self, normal: Normal) -> None:
        """Take an operation that is already oriented as the file is."""
        self.normal = normal
        self._mixed = None if normal.left is None else _MixedRows(normal.left)
        self._terms = tuple(_DenseTerm(term) for term in normal.dense)

    @classmethod
    def of(
        cls, factors: Sequence[Factor], layout: Layout, *, device: torch.device | str = "cpu"
    ) -> Action:
        """Return the action of an ordered list; InvariantError if a generator breaks its limits."""
        _check_sizes(factors)
        normal = Normal()
        for factor in factors:
            normal = normal.then(mapped(factor, lambda t: t.to(device)))
        return cls(normal.transposed if layout == "conv1d" else normal)

    @property
    def needs_prepass(self) -> bool:
        """True when rows of the file are mixed with each other."""
        return self._mixed is not None

    def prepass(self, row_start: int, rows: Tensor) -> None:
        """Take rows V[row_start : row_start + n] (n, columns) into account; each exactly once."""
        if self._mixed is not None:
            self._mixed.take(row_start, rows)

    def rows(self, row_start: int, rows: Tensor) -> Tensor:
        """Return the new rows (n, columns) in fp64.

        InvariantError if the prepass has not seen all rows, or the shape does not fit the factors.
        """
        return self.rows_(row_start, rows.to(torch.float64, copy=True))

    def rows_(self, row_start: int, rows: Tensor) -> Tensor:
        """As `rows`, in the memory of fp64 `rows` (n, columns), which is overwritten."""
        normal, end = self.normal, row_start + len(rows)
        if self._mixed is not None:
            self._mixed.rows_(row_start, rows)
        if normal.right is not None:
            normal.right.right_(rows)
        if normal.tall is not None and normal.wide is not None:
            rows.addmm_(normal.tall[row_start:end], normal.wide)
        for term in self._terms:
            rows += term.rows(row_start, end)
        return rows


class _MixedRows:
    """Rows of (I + B M Bᵀ) D V, for a V that is seen in blocks of rows."""

    def __init__(self, left: Mixing) -> None:
        self.left = left
        # BᵀD V is gathered without waiting for D V.
        back = None if left.blocks is None else left.blocks.mT
        self.reads = left.basis if back is None else blocks_left(back, left.basis)  # (d, m)
        self.gathered: Tensor | None = None  # BᵀD V (m, columns)
        self.whole: Tensor | None = None  # V, and D V once all of it is there (d, columns)
        self.seen = 0
        self.complete = False

    def take(self, row_start: int, rows: Tensor) -> None:
        """Gather what other rows will need of these (n, columns)."""
        values, (d, m) = rows.to(torch.float64), self.reads.shape
        if self.gathered is None:
            self.gathered = self.reads.new_zeros(m, rows.shape[1])
            if self.left.blocks is not None:
                self.whole = self.reads.new_empty(d, rows.shape[1])
        self.gathered.addmm_(self.reads[row_start : row_start + len(rows)].T, values)
        if self.whole is not None:
            self.whole[row_start : row_start + len(rows)] = values
        self.seen += len(rows)

    def rows_(self, row_start: int, rows: Tensor) -> None:
        """Put the mixed rows in the place of V's own (n, columns)."""
        lift, end = self._lifted(), row_start + len(rows)
        if self.whole is not None:
            rows.copy_(self.whole[row_start:end])
        rows.addmm_(self.left.basis[row_start:end], lift)

    def _lifted(self) -> Tensor:
        """Return M BᵀD V (m, columns), once all of V has been seen."""
        if self.gathered is None or self.seen != len(self.reads):
            raise InvariantError(
                f"rows are mixed by a rotation of {len(self.reads)} rows, "
                f"but the prepass has seen {self.seen}"
            )
        if not self.complete:
            # In place, part by part: a second copy would be the largest object in memory.
            for columns in torch.split(self.gathered, _COLUMNS, dim=1):
                columns.copy_(self.left.middle @ columns)
            if self.whole is not None and self.left.blocks is not None:
                n = self.left.blocks.shape[1]
                for start, block in enumerate(self.left.blocks):
                    part = self.whole[start * n : start * n + n]
                    part.copy_(block @ part)
            self.complete = True
        return self.gathered


class _DenseTerm:
    """Rows of L Δ R, where Δ is in memory in its stored type.

    It is wholly in fp64 only where a rotation in blocks mixes its rows.
    """

    def __init__(self, term: Term) -> None:
        self.delta = term.delta
        self.action = Action(Normal(left=term.left, right=term.right))
        self.ready = not self.action.needs_prepass

    def rows(self, row_start: int, end: int) -> Tensor:
        """Return rows of the term (n, columns) in fp64."""
        if not self.ready:
            step = max(1, _CHUNK // max(1, self.delta.shape[1]))
            for start in range(0, len(self.delta), step):
                self.action.prepass(start, self.delta[start : start + step])
            self.ready = True
        return self.action.rows(row_start, self.delta[row_start:end])


def dense(weight: Tensor, factors: Sequence[Factor], layout: Layout) -> Tensor:
    """Return the changed matrix in fp64, stored as `weight` is, on the weight's device."""
    action = Action.of(factors, layout, device=weight.device)
    action.prepass(0, weight)
    return action.rows(0, weight)


def _check_sizes(factors: Sequence[Factor]) -> None:
    """InvariantError if factors are for weights of different (d_out, d_in)."""
    for axis, side in enumerate(("output", "input")):
        found = [size for size in (sizes(factor)[axis] for factor in factors) if size is not None]
        for size in found:
            if size != found[0]:
                raise InvariantError(
                    f"factors of one tensor differ in their {side} size: {found[0]} and {size}"
                )
