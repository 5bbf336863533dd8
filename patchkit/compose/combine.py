"""The factors of several patches for one tensor as one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from patchkit.errors import InvariantError
from patchkit.factors import Side
from patchkit.factors.compression import compress, from_product
from patchkit.factors.kinds import Factor, Turn, tensors_of
from patchkit.factors.mean import Mean, karcher_mean, lie_mean

SMALLEST = 1e-9
"""Angle in radians below which a plane of a mean is left out."""

MEANS = {"mean": lie_mean, "karcher": karcher_mean}


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """The factors of one tensor, and how far each side's rotation can be from the exact one."""

    factors: tuple[Factor, ...]
    bound: float = 0.0
    steps: int = 0
    residual: float = 0.0


def product(lists: Sequence[Sequence[Factor]], tolerance: float | None) -> Combined:
    """Return all lists one after the other, compressed unless `tolerance` is None."""
    joined = tuple(chain.from_iterable(lists))
    if tolerance is None:
        return Combined(joined)
    done = compress(joined, tolerance=tolerance)
    return Combined(done.factors, done.bound)


def mean(method: str, lists: Sequence[Sequence[Factor]], tolerance: float | None) -> Combined:
    """Return one rotation for each side, the mean of all lists; an empty list is the identity.

    InvariantError for factors that are no rotations; SolveError where there is no mean.
    """
    turns = [factor for factor in chain.from_iterable(lists) if isinstance(factor, Turn)]
    if len(turns) != sum(map(len, lists)):
        raise InvariantError(
            "only rotations have a mean, and one of the patches adds to a tensor",
            hint="compose them in order instead: --method product",
        )
    found = Combined(())
    for side in ("input", "output"):
        chosen = [[turn for turn in turns_of(each) if turn.side == side] for each in lists]
        if any(chosen):
            found = _with_side(found, MEANS[method](chosen), side, chosen, tolerance)
    return found


def turns_of(factors: Sequence[Factor]) -> list[Turn]:
    """Return the rotations of a list."""
    return [factor for factor in factors if isinstance(factor, Turn)]


def _with_side(
    found: Combined,
    middle: Mean,
    side: Side,
    products: Sequence[Sequence[Turn]],
    tolerance: float | None,
) -> Combined:
    dtypes = {t.dtype for turn in chain(*products) for t in tensors_of(turn).values()}
    turn, bound = from_product(
        middle.basis,
        middle.q,
        side,
        tolerance=SMALLEST if tolerance is None else tolerance,
        dtype=max(dtypes, key=lambda dtype: dtype.itemsize),
    )
    return Combined(
        factors=found.factors if turn is None else (*found.factors, turn),
        bound=found.bound + bound + middle.residual,
        steps=max(found.steps, middle.steps),
        residual=max(found.residual, middle.residual),
    )
