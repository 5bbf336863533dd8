"""Many factors of one kind become one: at the end of an edit, and when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from patchkit.factors.action import dense
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.algebra import merge
from patchkit.factors.blocks import RotationBlocks, merge_blocks
from patchkit.factors.kinds import Factor
from patchkit.factors.minimal import minimal, planes_needed
from patchkit.factors.rotation import Rotation

_NOTHING = 1e-12  # relative singular value below which a column of a sum says nothing


def merged(factors: Sequence[Factor], weight: Tensor) -> tuple[Factor, ...]:
    """Return a list that acts on `weight` as `factors` do, one factor for neighbours of one kind.

    `weight` is (d_out, d_in). Rotations of one side become one, exactly, or where they have more
    planes than any change of this matrix needs, one that acts alike on it; sums of low rank
    become one of the least rank. All have at most min(d_out, d_in), all in fp64.
    """
    groups = groupby(factors, key=lambda factor: (factor.kind, getattr(factor, "side", None)))
    done: list[Factor] = []
    for _, group in groups:
        done.append(_one(list(group), done, weight))
    return tuple(done)


def crowded(factors: Sequence[Factor], d_out: int, d_in: int) -> bool:
    """Return whether the ranks of `factors` add up to more than twice what one could need.

    What is merged then needs at most half of that again, so a long sequence merges once in a while,
    its memory stays within that bound and a factor's cost is shared by many batches.
    """
    total: dict[tuple[object, int], int] = {}
    for factor in factors:
        kind = getattr(factor, "side", None), _needed(factor, d_out, d_in)
        total[kind] = total.get(kind, 0) + factor.rank
    return any(rank > 2 * needed for (_, needed), rank in total.items())


def _needed(factor: Factor, d_out: int, d_in: int) -> int:
    """Return the rank that one factor of this kind needs for any number of them."""
    if isinstance(factor, Rotation):
        return planes_needed(d_out, d_in, factor.size)
    return factor.rank if isinstance(factor, RotationBlocks) else min(d_out, d_in)


def _one(group: Sequence[Factor], before: Sequence[Factor], weight: Tensor) -> Factor:
    if isinstance(group[0], Rotation):
        return _one_rotation(cast(Sequence[Rotation], group), before, weight)
    if isinstance(group[0], RotationBlocks):
        return merge_blocks(cast(Sequence[RotationBlocks], group), dtype=torch.float64)
    if isinstance(group[0], Additive):
        return low_rank_sum(cast(Sequence[Additive], group))
    whole = cast(Sequence[AdditiveDense], group)
    return AdditiveDense(torch.stack([factor.d.double() for factor in whole]).sum(0))


def _one_rotation(group: Sequence[Rotation], before: Sequence[Factor], weight: Tensor) -> Rotation:
    if sum(rotation.rank for rotation in group) <= _needed(group[0], *weight.shape):
        return merge(group, dtype=torch.float64)
    return minimal(group, dense(weight.double(), before, "linear"))


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
