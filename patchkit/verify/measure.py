"""What factors do to one real weight: norm, condition, and what storing the result loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod, sqrt

import torch
from torch import Tensor

from patchkit.factors.action import Action, Factor, Normal
from patchkit.factors.spectrum import condition
from patchkit.factors.streaming import changed_rows
from patchkit.patch.metadata import TensorMeta
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import torch_dtype

EXACT_UP_TO = 1024
"""Shorter side of a matrix up to which all singular values are computed without being asked."""
_EXACT_NUMBERS = 4 << 20  # and the most numbers of such a matrix, 32 MB in fp64


@dataclass(frozen=True, slots=True)
class Measured:
    """One edited weight W′ against W, in fp64 before storing.

    `norm_change` is |‖W′‖_F / ‖W‖_F − 1|; `condition` is κ(W) and `condition_change`
    |κ(W′) / κ(W) − 1|, None where singular values were not computed. `rounding` is the norm of the
    noise of storing W′ in the base's type over that of the edit, both in the directions that the
    edit uses; `edit` is ‖W′ − W‖_F / ‖W‖_F.
    """

    norm_change: float
    condition: float | None
    condition_change: float | None
    rounding: float
    edit: float


def measure(
    checkpoint: Checkpoint,
    name: str,
    meta: TensorMeta,
    factors: Sequence[Factor],
    *,
    deep: bool = False,
) -> Measured:
    """Measure one tensor in blocks of rows; O(d_out d_in r), and O(d³) with singular values.

    Singular values are computed for small matrices, and for all with `deep`; only then is the
    whole matrix in memory.
    """
    action = Action.of(factors, meta.layout)
    small = min(meta.shape) <= EXACT_UP_TO and prod(meta.shape) <= _EXACT_NUMBERS
    whole = deep or small
    before, after, change = _Square(), _Square(), _Square()
    directions = _Directions.of(action.normal)
    noise, edit = _Along(directions), _Along(directions)
    kept: list[tuple[Tensor, Tensor]] = []
    for start, rows, new in changed_rows(checkpoint, name, action):
        old = rows.to(torch.float64)
        stored = new.to(torch_dtype(meta.dtype)).to(torch.float64)
        before.add(old)
        after.add(new)
        moved = new - old
        change.add(moved)
        noise.add(start, stored - new)
        edit.add(start, moved)
        if whole:
            kept.append((old, new))
    kappa, kappa_change = _condition(kept) if whole else (None, None)
    return Measured(
        norm_change=abs(_ratio(after.root, before.root, 1.0) - 1),
        condition=kappa,
        condition_change=kappa_change,
        rounding=_ratio(noise.root, edit.root, 0.0),
        edit=_ratio(change.root, before.root, 0.0),
    )


class _Square:
    """A sum of squares."""

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, rows: Tensor) -> None:
        self.total += float(torch.linalg.vector_norm(rows)) ** 2

    @property
    def root(self) -> float:
        return sqrt(self.total)


@dataclass(frozen=True, slots=True, eq=False)
class _Directions:
    """Orthonormal directions that an edit uses: of `columns` (c, m) or of `rows` (r, m), or all.

    A rotation of the columns by planes, or a sum of low rank, changes only what lies along its own
    directions there; so does such a rotation of the rows. Where both are mixed, or a factor has no
    directions of its own, all count.
    """

    columns: Tensor | None
    rows: Tensor | None

    @classmethod
    def of(cls, normal: Normal) -> _Directions:
        mixed = None if normal.left is None else normal.left.directions
        plain = _columns(normal)
        return cls(
            columns=_orthonormal(plain) if plain and normal.left is None else None,
            rows=_orthonormal([mixed]) if mixed is not None and plain == [] else None,
        )


class _Along:
    """Norm of a matrix, given in blocks of rows, in some directions."""

    def __init__(self, directions: _Directions) -> None:
        self.columns, self.rows = directions.columns, directions.rows
        self.square = _Square()
        self.gathered: Tensor | None = None

    def add(self, start: int, rows: Tensor) -> None:
        if self.rows is None:
            self.square.add(rows if self.columns is None else rows @ self.columns)
            return
        if self.gathered is None:
            self.gathered = rows.new_zeros(self.rows.shape[1], rows.shape[1])
        self.gathered.addmm_(self.rows[start : start + len(rows)].T, rows)

    @property
    def root(self) -> float:
        if isinstance(self.gathered, Tensor):
            return float(torch.linalg.matrix_norm(self.gathered))
        return self.square.root


def _columns(normal: Normal) -> list[Tensor] | None:
    """Directions that are changed in every row, None where that may be all."""
    if normal.dense or (normal.right is not None and normal.right.directions is None):
        return None
    found = [] if normal.right is None else [normal.right.basis]
    return found + ([] if normal.wide is None else [normal.wide.T])


def _orthonormal(parts: Sequence[Tensor]) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.cat(list(parts), dim=1))[0]
    return basis


def _condition(kept: Sequence[tuple[Tensor, Tensor]]) -> tuple[float | None, float | None]:
    before, after = (condition(torch.cat([pair[i] for pair in kept])) for i in (0, 1))
    change = abs(after / before - 1)
    return (before, change) if isfinite(change) else (None, None)


def _ratio(numerator: float, denominator: float, of_zeros: float) -> float:
    """Return the quotient; not a number where either is not, so that it cannot pass a limit."""
    if denominator == 0:
        return of_zeros if numerator == 0 else inf
    return numerator / denominator
