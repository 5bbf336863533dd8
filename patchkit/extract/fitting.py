"""One matrix: the space a rotation is looked for in, grown until it explains no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.extract.directions import Dominant, dominant, extended, first
from patchkit.extract.nearest import Nearest, truncated
from patchkit.extract.pair import Pair, Sizes, Turned
from patchkit.factors import Layout, Side
from patchkit.factors.rotation import Rotation

LIMIT = 1024
"""Most directions of one side in which a rotation is looked for."""

_LEAST = 64  # directions of the change; a few planes of many are chosen better than they are found
_WORTH = 0.01  # share of the change that a larger space must explain more
_NOTHING = 1e-10  # share of the change that nobody misses
_NOISE = 1.1  # times the expected energy of rounding, what rounding may come to


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The kept planes in fp64, and how many there were; shares of ‖W″ − W‖²_F."""

    rotation: Rotation
    planes_found: int
    directions: int
    kept: float
    reachable: float


def fit(
    pair: Pair, sizes: Sizes, layout: Layout, sides: Sequence[Side], rank: int | None, energy: float
) -> Fitted | None:
    """Return the rotation of the side that explains most; None if none explains anything.

    With at least as many directions as the side is long, the rotation is the nearest of all, and
    else the nearest among those that move only directions of the space. O(d_out d_in m) for each
    pass over the matrix and O(m³), m ≤ 1024.
    """
    most = LIMIT // 2 if rank is None else min(LIMIT // 2, max(_LEAST, 4 * rank))
    change = dominant(pair, most, sizes.edge(*pair.shape))
    if not len(change.values):
        return None
    begun = [_begun(Turned(pair, side, layout), change, sizes) for side in sides]
    found = []
    for start in sorted(begun, key=lambda each: -each.nearest.gain):
        found.append(_fitted(start, sizes, rank, energy))
        if 1 - found[-1].reachable <= _missed(sizes):
            break  # nothing is left that the other side could explain better
    best = max(found, key=lambda fitted: fitted.kept)
    return best if best.rotation.rank else None


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A side, the directions (d, 2k) of the change and of where it lands, and what they give."""

    turned: Turned
    block: Tensor
    nearest: Nearest


def _begun(turned: Turned, change: Dominant, sizes: Sizes) -> _Begun:
    block = torch.cat(first(turned, change), dim=1)
    basis = extended(block[:, :0], block, min(turned.size, LIMIT))
    return _Begun(turned, block, _nearest(turned, basis, sizes))


def _fitted(start: _Begun, sizes: Sizes, rank: int | None, energy: float) -> Fitted:
    nearest = _grown(start, sizes)
    rotation = nearest.rotation(start.turned.side)
    gains = nearest.gains(rotation)
    kept = truncated(rotation, gains, rank, energy)
    return Fitted(
        rotation=kept,
        planes_found=rotation.rank,
        directions=nearest.basis.shape[1],
        kept=float(nearest.gains(kept).sum()) / sizes.change,
        reachable=nearest.gain / sizes.change,
    )


def _grown(start: _Begun, sizes: Sizes) -> Nearest:
    """Return the nearest rotation in the span of (AᵀA)ʲ block, with j as large as it pays.

    The exact rotation solves Ω AᵀA + AᵀA Ω = AᵀΔ − ΔᵀA to first order, whose solution lies in
    such a space for some j; where A″ = A R̃ for a rotation, j = 0 is enough.
    """
    turned, block, found = start.turned, start.block, start.nearest
    most = min(turned.size, LIMIT)
    basis = found.basis
    while basis.shape[1] < most and 1 - found.gain / sizes.change > _missed(sizes):
        block = turned.back(turned.across(block))
        block /= torch.linalg.vector_norm(block, dim=0).clamp_min(torch.finfo(block.dtype).tiny)
        basis = extended(basis, block, most)
        wider = _nearest(turned, basis, sizes)
        if wider.gain - found.gain < _WORTH * sizes.change:
            break
        found = wider
    return found


def _nearest(turned: Turned, basis: Tensor, sizes: Sizes) -> Nearest:
    # What rounding adds to a direction of A outweighs what is seen of A there only where A is zero.
    return Nearest.of(basis, *turned.moments(basis), ridge=sizes.noise / turned.size)


def _missed(sizes: Sizes) -> float:
    """The share of the change that is rounding, which no rotation needs to explain."""
    return _NOISE * sizes.noise / sizes.change + _NOTHING
