"""Many factors of one kind become one: at the end of an edit, and when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.algebra import merge
from patchkit.factors.blocks import RotationBlocks, merge_blocks
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation

_NOTHING = 1e-12  # relative singular value below which a column of a sum says nothing


def merged(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Return a list that acts as `factors` do, with one factor for neighbours of one kind.

    Rotations of one side become one, exactly; sums of low rank become one of the least rank, at
    most min(d_out, d_in); all in fp64.
    """
    groups = groupby(factors, key=lambda factor: (factor.kind, getattr(factor, "side", None)))
    return tuple(_one(list(group)) for _, group in groups)


def bounded(factors: Sequence[Factor], d_out: int, d_in: int) -> tuple[Factor, ...]:
    """Return `factors`, merged where their ranks add up to more than twice what one could need.

    What is merged needs at most half of that again, so a long sequence merges once in a while, its
    memory stays within that bound and a factor's cost is shared by many batches.
    """
    most = {"input": d_in, "output": d_out}
    total: dict[object, int] = {}
    for factor in factors:
        side = getattr(factor, "side", None)
        total[side] = total.get(side, 0) + factor.rank
    limits = {side: most.get(str(side), 2 * min(d_out, d_in)) for side in total}
    if all(total[side] <= limits[side] for side in total):
        return tuple(factors)
    return merged(factors)


def _one(group: Sequence[Factor]) -> Factor:
    if isinstance(group[0], Rotation):
        return merge(cast(Sequence[Rotation], group), dtype=torch.float64)
    if isinstance(group[0], RotationBlocks):
        return merge_blocks(cast(Sequence[RotationBlocks], group), dtype=torch.float64)
    if isinstance(group[0], Additive):
        return low_rank_sum(cast(Sequence[Additive], group))
    dense = cast(Sequence[AdditiveDense], group)
    return AdditiveDense(torch.stack([factor.d.double() for factor in dense]).sum(0))


def low_rank_sum(factors: Sequence[Additive]) -> Additive:
    """Return Σ l f in its least rank, with balanced columns √σ u and rows √σ vᵀ, in fp64."""
    u, sizes, v = singular_values(factors)
    root = sizes.sqrt()
    return Additive(u * root, root[:, None] * v.T)


def singular_values(factors: Sequence[Additive]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular triplets u (d_out, r), σ (r,), v (d_in, r) of Σ l f that are not zero.

    Two QR decompositions and one SVD of the small core, O((d_out + d_in) n²) for n columns.
    """
    tall = torch.cat([factor.l.double() for factor in factors], dim=1)  # (d_out, n)
    wide = torch.cat([factor.f.double() for factor in factors])  # (n, d_in)
    left, one = torch.linalg.qr(tall)
    right, two = torch.linalg.qr(wide.T)
    u, sizes, v = torch.linalg.svd(one @ two.T, full_matrices=False)
    kept = sizes > _NOTHING * sizes[0] if len(sizes) else sizes > 0
    return (left @ u)[:, kept], sizes[kept], (right @ v.T)[:, kept]
