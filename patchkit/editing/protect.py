"""What an edit may not touch, as directions that no factor may read or write.

    nullspace   factors read nothing in directions where preserved keys have energy (AlphaEdit,
                Fang et al., https://arxiv.org/abs/2410.02355, as a filter of its own)
    spectrum    the dominant singular triplets of the base's matrix stay (REVIVE,
                https://arxiv.org/abs/2601.11042)
    history     earlier facts' keys count as preserved knowledge

`history` is kept by the methods themselves; the others are subspaces that a `Guard` holds. Over
input-side rotations both are one condition on the basis N: for N ⟂ V_k, W N (Q − I) Nᵀ neither
reads V_k nor writes U_k, because U_kᵀ W N = Σ_k V_kᵀ N = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from patchkit.editing.settings import above, nearest
from patchkit.editing.statistics import Statistics
from patchkit.errors import RecipeError

NAMES = ("nullspace", "spectrum", "history")


@dataclass(frozen=True, slots=True)
class Protection:
    """Thresholds of the protections.

    `nullspace` is the energy, in mean eigenvalues of the preserved moment, below which a direction
    is free. `energy` τ and `exponent` p choose the dominant triplets: the fewest whose Σ σᵖ reaches
    τ of the whole (neither is published; p = 2 is the energy of the matrix). `null` says what
    happens to inputs that the base's matrix maps to zero: `keep` leaves them writable, the
    projector form; `drop` takes them away as well, the literal sum over a thin decomposition.
    """

    nullspace: float = 0.1
    energy: float = 0.2
    exponent: float = 2.0
    null: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        above(self, 0, "nullspace", "energy", "exponent")
        if self.energy >= 1:
            raise RecipeError(f"energy must be below 1, got {self.energy:g}")


def check_protections(
    method: str, composes: Mapping[str, str | None], asked: Sequence[str]
) -> None:
    """RecipeError for a protection that is not there, or that `method` has no meaning for."""
    for name in asked:
        if name not in NAMES:
            raise RecipeError(f"there is no protection {name!r}", hint=nearest(name, NAMES))
        reason = composes.get(name, "the two are not defined together")
        if reason is not None:
            raise RecipeError(f"{method} does not take the protection {name}: {reason}")


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """Directions of one matrix that no factor may use, in fp64.

    `reads` (d_in, a) and `writes` (d_out, b) are orthonormal; None is nothing. `history` says that
    a method should count earlier facts' keys as preserved knowledge.
    """

    reads: Tensor | None = None
    writes: Tensor | None = None
    history: bool = False

    @classmethod
    def of(
        cls,
        base: Tensor,
        statistics: Statistics,
        asked: Sequence[str],
        thresholds: Protection,
    ) -> Guard:
        """Find what `asked` forbids for `base` (d_out, d_in); one decomposition for each."""
        reads: list[Tensor] = []
        writes = None
        if "nullspace" in asked:
            reads.append(occupied(statistics, thresholds.nullspace * statistics.energy))
        if "spectrum" in asked:
            left, right = dominant(base, thresholds)
            reads.append(right)
            writes = left
        return cls(_joined(reads), writes, "history" in asked)

    def additive(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of l f (d_out, r), (r, d_in) without what is forbidden."""
        return _without(left, self.writes), _without(right.T, self.reads).T

    def dense(self, change: Tensor) -> Tensor:
        """Return a change (d_out, d_in) without what is forbidden, in its own type."""
        kept = _without(_without(change.double(), self.writes).T, self.reads).T
        return kept.to(change.dtype)

    def inputs(self, columns: Tensor) -> Tensor:
        """Return input directions (d_in, n) without what may not be read, in their own type."""
        return _without(columns.double(), self.reads).to(columns.dtype)


def occupied(statistics: Statistics, threshold: float) -> Tensor:
    """Return the eigenvectors (d_in, a) of the moment with energy `threshold` or more, in fp64."""
    values, vectors = torch.linalg.eigh(statistics.moment.double())
    taken: Tensor = vectors[:, values >= threshold]
    return taken


def dominant(base: Tensor, thresholds: Protection) -> tuple[Tensor, Tensor]:
    """Return U_k (d_out, k) and what may not be read (d_in, k or more) for `base`, in fp64."""
    drop = thresholds.null == "drop"
    left, sizes, right = torch.linalg.svd(base.double(), full_matrices=drop)
    shares = torch.cumsum(sizes**thresholds.exponent, 0)
    k = int((shares < thresholds.energy * shares[-1]).sum()) + 1
    forbidden = right[:k].T
    if drop:
        forbidden = torch.cat([forbidden, right[len(sizes) :].T], dim=1)
    return left[:, :k], forbidden


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    """Return an orthonormal basis of the sum of the parts' ranges."""
    if len(parts) < 2:
        return parts[0] if parts else None
    left, values, _ = torch.linalg.svd(torch.cat(list(parts), dim=1), full_matrices=False)
    basis: Tensor = left[:, values > 1e-8]
    return basis


def _without(columns: Tensor, basis: Tensor | None) -> Tensor:
    if basis is None:
        return columns
    return columns - basis @ (basis.T @ columns)
