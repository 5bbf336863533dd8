"""An ordered list of factors in closed form: W′ = L W R + P F + Σ Lⱼ Δⱼ Rⱼ.

L and R are products of rotations, P F is of low rank, and there is a term for each dense sum Δⱼ
with the rotations that came after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchkit.factors import Side
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.kinds import Factor
from patchkit.factors.mixing import Mixing


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """L Δ R for a dense `delta` (rows, columns) of any type, oriented as W is."""

    delta: Tensor
    left: Mixing | None = None
    right: Mixing | None = None

    @property
    def transposed(self) -> Term:
        """Return Rᵀ Δᵀ Lᵀ."""
        return Term(self.delta.T, _transposed(self.right), _transposed(self.left))


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """W′ = L W R + P F + Σ Lⱼ Δⱼ Rⱼ. None is absent; `tall` P (rows, s), `wide` F (s, cols)."""

    left: Mixing | None = None
    right: Mixing | None = None
    tall: Tensor | None = None
    wide: Tensor | None = None
    dense: tuple[Term, ...] = ()

    def then(self, factor: Factor) -> Normal:
        """Return this operation followed by one more factor."""
        if isinstance(factor, Additive):
            return self._plus(factor.l.to(torch.float64), factor.f.to(torch.float64))
        if isinstance(factor, AdditiveDense):
            return replace(self, dense=(*self.dense, Term(factor.d)))
        return self.turned(factor.side, Mixing.of(factor))

    def turned(self, side: Side, turn: Mixing) -> Normal:
        """Return this operation followed by a rotation of one side."""
        return self._turned_right(turn) if side == "input" else self._turned_left(turn)

    def _turned_right(self, turn: Mixing) -> Normal:
        return replace(
            self,
            right=self.right.times(turn) if self.right else turn,
            wide=self.wide if self.wide is None else turn.right(self.wide),
            dense=tuple(
                replace(term, right=term.right.times(turn) if term.right else turn)
                for term in self.dense
            ),
        )

    def _turned_left(self, turn: Mixing) -> Normal:
        return replace(
            self,
            left=turn.times(self.left) if self.left else turn,
            tall=self.tall if self.tall is None else turn.left(self.tall),
            dense=tuple(
                replace(term, left=turn.times(term.left) if term.left else turn)
                for term in self.dense
            ),
        )

    def _plus(self, tall: Tensor, wide: Tensor) -> Normal:
        if self.tall is None or self.wide is None:
            return replace(self, tall=tall, wide=wide)
        return replace(
            self, tall=torch.cat([self.tall, tall], dim=1), wide=torch.cat([self.wide, wide], dim=0)
        )

    @property
    def transposed(self) -> Normal:
        """Return the same operation on Wᵀ."""
        return Normal(
            left=_transposed(self.right),
            right=_transposed(self.left),
            tall=None if self.wide is None else self.wide.T,
            wide=None if self.tall is None else self.tall.T,
            dense=tuple(term.transposed for term in self.dense),
        )


def _transposed(mixing: Mixing | None) -> Mixing | None:
    return None if mixing is None else mixing.transposed
