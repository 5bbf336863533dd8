"""What an edit knows of one matrix between batches: base, current weight, factors, history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.capture import module_of, weight_of
from patchkit.editing.merging import crowded, merged
from patchkit.editing.protect import Guard
from patchkit.editing.statistics import Statistics
from patchkit.factors.action import Factor, dense
from patchkit.tensors.layout import Site


@dataclass(frozen=True, slots=True, eq=False)
class SiteState:
    """One matrix during an edit.

    `base` and `weight` are (d_out, d_in) in fp32: the base's and the current one, which is always
    the base with all factors applied at once, so that rounding does not accumulate. `carried` are
    the factors of earlier patches, `factors` those of this edit. `keys` (h, c, d_in) and `values`
    (h, c, d_out) are those of the h facts written so far, each in c contexts, the bare prompt
    first. `guard` is what factors may not use; `solver` what the method keeps of this matrix from
    batch to batch, such as a decomposition.
    """

    site: Site
    base: Tensor
    weight: Tensor
    statistics: Statistics
    keys: Tensor
    values: Tensor
    factors: tuple[Factor, ...] = ()
    carried: tuple[Factor, ...] = ()
    guard: Guard = field(default_factory=Guard)
    solver: Any = None

    @classmethod
    def of(cls, model: PreTrainedModel, site: Site, statistics: Statistics) -> SiteState:
        """Start from the weights that `model` has now."""
        base = weight_of(model, site).float().clone()
        return cls(
            site=site,
            base=base,
            weight=base,
            statistics=statistics,
            keys=base.new_zeros(0, 1, site.d_in),
            values=base.new_zeros(0, 1, site.d_out),
        )

    @property
    def ground(self) -> Tensor:
        """What this edit's first factor acts on (d_out, d_in): the base and earlier patches."""
        return dense(self.base.double(), self.carried, "linear") if self.carried else self.base

    def changed(self, *more: Factor) -> SiteState:
        """Return the state after `more` factors of this edit."""
        return self.with_factors((*self.factors, *more))

    def with_factors(self, factors: Sequence[Factor]) -> SiteState:
        """Return the state with `factors` as all that this edit has done."""
        every = (*self.carried, *factors)
        weight = dense(self.base.double(), every, "linear").float() if every else self.base
        return replace(self, factors=tuple(factors), weight=weight)

    def bounded(self) -> SiteState:
        """Return a state that does the same, with factors that do not grow with the batches."""
        if not crowded(self.factors, self.site.d_out, self.site.d_in):
            return self
        return self.with_factors(merged(self.factors, self.ground))

    def carrying(self, factors: Sequence[Factor]) -> SiteState:
        """Return the state on top of earlier patches' `factors`, before anything of this edit."""
        return replace(self, carried=(*self.carried, *factors)).with_factors(self.factors)

    def remember(self, keys: Tensor) -> SiteState:
        """Return the state with `keys` (n, c, d_in) and what they now give in the history."""
        values = keys @ self.weight.T
        if not len(self.keys):
            return replace(self, keys=keys, values=values)
        return replace(
            self, keys=torch.cat([self.keys, keys]), values=torch.cat([self.values, values])
        )

    def forget(self, rows: Sequence[int]) -> SiteState:
        """Return the state without these rows of the history, whose facts are written again."""
        kept = torch.ones(len(self.keys), dtype=torch.bool, device=self.keys.device)
        kept[list(rows)] = False
        return replace(self, keys=self.keys[kept], values=self.values[kept])


def install(model: PreTrainedModel, states: Mapping[int, SiteState]) -> None:
    """Write every state's current weight into the model, rounded once to the model's dtype."""
    for state in states.values():
        weight_of(model, state.site).copy_(state.weight)


@contextmanager
def borrowed(model: PreTrainedModel, sites: Sequence[Site]) -> Iterator[None]:
    """Give the weights of `sites` back bit for bit when the block ends, however it ends."""
    kept = {site: module_of(model, site).get_parameter("weight").detach().clone() for site in sites}
    try:
        yield
    finally:
        with torch.no_grad():
            for site, weight in kept.items():
                module_of(model, site).get_parameter("weight").copy_(weight)
