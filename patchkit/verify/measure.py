"""What factors do to one real weight: norm, condition, and what storing the result loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import torch
from torch import Tensor

from patchkit.factors.action import Action, Factor, Normal
from patchkit.patch.metadata import TensorMeta
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import torch_dtype
from patchkit.verify.weights import changed_rows

EXACT_UP_TO = 1024
"""Shorter side of a matrix up to which all singular values are computed without being asked."""


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
    whole = deep or min(meta.shape) <= EXACT_UP_TO
    before, after, change = _Square(), _Square(), _Square()
    noise, edit = _Along(action.normal), _Along(action.normal)
    kept: list[tuple[Tensor, Tensor]] = []
    for start, old, new in changed_rows(checkpoint, name, action):
        stored = new.to(torch_dtype(meta.dtype)).to(torch.float64)
        before.add(old)
        after.add(new)
        change.add(new - old)
        noise.add(start, stored - new)
        edit.add(start, new - old)
        if whole:
            kept.append((old, new))
    condition, condition_change = _condition(kept) if whole else (None, None)
    return Measured(
        norm_change=abs(_ratio(after.root, before.root, 1.0) - 1),
        condition=condition,
        condition_change=condition_change,
        rounding=_ratio(noise.root, edit.root, 0.0),
        edit=_ratio(change.root, before.root, 0.0),
    )


class _Square:
    """A sum of squares."""

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, rows: Tensor) -> None:
        self.total += float(rows.square().sum())

    @property
    def root(self) -> float:
        return sqrt(self.total)


class _Along:
    """Norm of a matrix, given in blocks of rows, in the directions that an edit uses.

    A rotation of the columns by planes, or a sum of low rank, changes only what lies along its own
    directions there; so does such a rotation of the rows. Where both are mixed, or a factor has no
    directions of its own, all count.
    """

    def __init__(self, normal: Normal) -> None:
        mixed = None if normal.left is None else normal.left.directions
        plain = _columns(normal)
        self.columns = _orthonormal(plain) if plain and normal.left is None else None
        self.rows = _orthonormal([mixed]) if mixed is not None and plain == [] else None
        self.square = _Square()
        self.gathered: Tensor | float = 0.0

    def add(self, start: int, rows: Tensor) -> None:
        if self.rows is not None:
            self.gathered = self.gathered + self.rows[start : start + len(rows)].T @ rows
        else:
            self.square.add(rows if self.columns is None else rows @ self.columns)

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
    before, after = (_kappa(torch.cat([pair[i] for pair in kept])) for i in (0, 1))
    if before is None or after is None:
        return None, None
    return before, abs(after / before - 1)


def _kappa(w: Tensor) -> float | None:
    """Return σ₁ / σₙ, None for a matrix without full rank or with values that are not finite."""
    if not bool(torch.isfinite(w).all()):
        return None
    values: Tensor = torch.linalg.svdvals(w)
    least = float(values[-1])
    return float(values[0]) / least if least > 0 else None


def _ratio(numerator: float, denominator: float, of_zeros: float) -> float:
    """Return the quotient; not a number where either is not, so that it cannot pass a limit."""
    if denominator == 0:
        return of_zeros if numerator == 0 else inf
    return numerator / denominator
