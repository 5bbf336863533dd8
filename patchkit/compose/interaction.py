"""Whether the order of patches matters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from patchkit.errors import InvariantError
from patchkit.factors.distance import commutator_norm
from patchkit.factors.kinds import Factor, Turn

MANY = 16
"""Number of patches up to which every pair is compared."""

Found = tuple[float, tuple[int, int]]


def strongest(lists: Sequence[Sequence[Factor]], *, every_pair: bool) -> Found | None:
    """Return the largest commutator norm of two lists on one side, and the places of the two.

    None where no two lists rotate one side, or where the sides are too long to compute it. Factors
    that are no rotations are left out.
    """
    places = range(len(lists))
    pairs = list(combinations(places, 2) if every_pair else pairwise(places))
    return max(_norms(lists, pairs), default=None)


def _norms(lists: Sequence[Sequence[Factor]], pairs: Sequence[tuple[int, int]]) -> Iterable[Found]:
    for side in ("input", "output"):
        turns = [[f for f in each if isinstance(f, Turn) and f.side == side] for each in lists]
        for one, two in pairs:
            if turns[one] and turns[two]:
                try:
                    yield commutator_norm(turns[one], turns[two]), (one, two)
                except InvariantError:
                    # Blocks and low-rank rotations on a side beyond 4096: composing them is exact
                    # all the same, so a figure that is too dear is left out.
                    return
