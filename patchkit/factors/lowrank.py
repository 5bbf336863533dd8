"""The change W′ − W of one matrix as a product of two thin ones, the form of a LoRA.

An ordered list amounts to W′ = L W R + P F with L = I + Bₗ Mₗ Bₗᵀ and R = I + Bᵣ Mᵣ Bᵣᵀ
(`normal`), so that W′ − W = U V exactly, with

    U = [(W Bᵣ) Mᵣ, Bₗ Mₗ, P]    (d_out, k)
    V = [Bᵣᵀ; (Bₗᵀ W) R; F]      (k, d_in)

The weight enters only through W Bᵣ and Bₗᵀ W, and the bases do not depend on the strength: once
these two are known, any strength costs O((d_out + d_in) k²) and needs the weight no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchkit.errors import InvariantError
from patchkit.factors import Layout
from patchkit.factors.additive import Additive
from patchkit.factors.core import exponential
from patchkit.factors.kinds import Factor, mapped
from patchkit.factors.mixing import Mixing
from patchkit.factors.normal import Normal
from patchkit.factors.rotation import Rotation

_NOISE = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """W′ − W = U V in fp64. Shapes: `up` U (d_out, k), `down` V (k, d_in)."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """Inner size k, at least the rank of the product."""
        return len(self.down)

    def padded(self, rank: int) -> LowRank:
        """Return the same product with zeros up to an inner size; InvariantError if it is less."""
        more = rank - self.rank
        if more < 0:
            raise InvariantError(f"a change of rank {self.rank} does not fit into rank {rank}")
        up = torch.nn.functional.pad(self.up, (0, more))
        return LowRank(up, torch.nn.functional.pad(self.down, (0, 0, 0, more)))

    def shortest(self) -> LowRank:
        """Return the same product with the least inner size, from its factorised SVD.

        Singular values at the level of rounding, 1e-13 of ‖U‖ ‖V‖, are left out.
        """
        q_up, r_up = torch.linalg.qr(self.up)
        q_down, r_down = torch.linalg.qr(self.down.T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T)
        # Not relative to the largest: factors that cancel leave nothing but rounding.
        size = torch.linalg.matrix_norm(r_up) * torch.linalg.matrix_norm(r_down)
        keep = int((values > _NOISE * size).sum())
        root = values[:keep].sqrt()
        return LowRank(q_up @ left[:, :keep] * root, (q_down @ right[:keep].T * root).T)

    def distance(self, other: LowRank) -> float:
        """Return ‖U V − U′ V′‖_F, without forming either product."""
        _, r_up = torch.linalg.qr(torch.cat([self.up, -other.up], dim=1))
        _, r_down = torch.linalg.qr(torch.cat([self.down, other.down]).T)
        return float(torch.linalg.matrix_norm(r_up @ r_down.T))

    def norm(self) -> float:
        """Return ‖U V‖_F."""
        return self.distance(LowRank(self.up[:, :0], self.down[:0]))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a list of factors needs of W: `reach` W Bᵣ (d_out, m), `lift` Bₗᵀ W (n, d_in)."""

    reach: Tensor
    lift: Tensor


class Change:
    """An ordered list of rotations and low-rank sums, waiting for a weight and a strength.

    `right` Bᵣ (d_in, m) and `left` Bₗ (d_out, n) are the directions in which W is looked at.
    """

    def __init__(
        self,
        factors: Sequence[Factor],
        shape: tuple[int, int],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the factors of one tensor; `shape` is (d_out, d_in).

        InvariantError for a factor that moves every direction, which no thin product can.
        """
        for factor in factors:
            if not isinstance(factor, Rotation | Additive):
                raise InvariantError(
                    f"a factor of kind {factor.kind} is not of low rank, so it can be applied but "
                    "neither attached nor exported",
                    hint="patchkit apply BASE PATCH… -o OUT",
                    details={"kind": factor.kind},
                )
        moved = [mapped(factor, lambda t: t.to(device, torch.float64)) for factor in factors]
        self._parts = [(f, f.core()) if isinstance(f, Rotation) else (f, None) for f in moved]
        normal = self._normal(1.0)
        d_out, d_in = shape
        nothing = torch.zeros(0, dtype=torch.float64, device=device)
        self.right = normal.right.basis if normal.right else nothing.reshape(d_in, 0)
        self.left = normal.left.basis if normal.left else nothing.reshape(d_out, 0)

    def at(self, seen: Seen, strength: float = 1.0) -> LowRank:
        """Return W′ − W where each factor has a strength: angles and sums are scaled by it."""
        normal = self._normal(strength)
        ups, downs = [self.left[:, :0]], [self.right[:, :0].T]
        if normal.right:
            ups.append(seen.reach @ normal.right.middle)
            downs.append(self.right.T)
        if normal.left:
            ups.append(self.left @ normal.left.middle)
            downs.append(normal.right.right(seen.lift) if normal.right else seen.lift)
        if normal.tall is not None and normal.wide is not None:
            ups.append(normal.tall)
            downs.append(normal.wide)
        return LowRank(torch.cat(ups, dim=1), torch.cat(downs))

    def _normal(self, strength: float) -> Normal:
        normal = Normal()
        for factor, core in self._parts:
            if core is None:
                normal = normal.then(factor.power(strength))
            elif isinstance(factor, Rotation):
                turned = exponential(core.basis, strength * core.skew)
                normal = normal.turned(factor.side, Mixing.of_core(turned))
        return normal


def look(change: Change, rows: Iterable[tuple[int, Tensor]], layout: Layout) -> Seen:
    """Return what `change` needs of a weight, from blocks of rows as it is stored.

    `rows` yields the index of the first row and rows (n, columns) of any type; products are fp64.
    """
    along, across = (
        (change.right, change.left) if layout == "linear" else (change.left, change.right)
    )
    products, sums = [], None
    for start, block in rows:
        values = block.to(torch.float64)
        products.append(values @ along)
        part = across[start : start + len(block)].T @ values
        sums = part if sums is None else sums.add_(part)
    if sums is None:
        raise InvariantError("a weight without rows cannot be changed")
    product = torch.cat(products)
    return Seen(product, sums) if layout == "linear" else Seen(sums.T, product.T)
