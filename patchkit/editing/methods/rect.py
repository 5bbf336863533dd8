"""RECT (Gu et al., https://arxiv.org/abs/2401.04700): a host's updates, their largest part only.

An entry of Δ is kept when |Δ_ij| / (|W_ij| + ε) is among the largest `keep` of the matrix, W being
the current weight. What is left has no low rank. `docs/methods/rect.md` has the deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.additive import write
from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.methods.hosts import RIDGE_HOSTS, host_options, host_solver
from patchkit.editing.settings import above, one_of
from patchkit.editing.state import SiteState
from patchkit.errors import RecipeError
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.tensors.layout import Site

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {"nullspace": None, "spectrum": None, "history": None}
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Options:
    """`keep` is a share of all entries: 0.4 in AlphaEdit's repository, 0.2 in RECT's own.

    `host` is the method whose updates are sifted, with its own `host_options`. `signed` adds ε to W
    itself, as AlphaEdit's repository does, which keeps every entry with W_ij near −ε.
    """

    keep: float = 0.4
    host: str = "memit"
    host_options: Any = None
    signed: bool = False

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        above(self, 0, "keep")
        if self.keep > 1:
            raise RecipeError(f"keep must be at most 1, got {self.keep:g}")
        one_of(self, "host", RIDGE_HOSTS)
        object.__setattr__(self, "host_options", host_options(self.host, self.host_options))


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts by the host, each factor sifted before it is added."""

    def sift(factor: Additive, state: SiteState) -> AdditiveDense:
        change = factor.l @ factor.f
        return AdditiveDense(largest(change, state.weight.double(), options.keep, options.signed))

    solver = host_solver(options.host, options.host_options)
    return write(model, states, batch, options.host_options, solver, finished, sift)


def stored(site: Site, facts: int, options: Options) -> int:
    """Return the numbers of a dense sum."""
    return site.d_out * site.d_in


def largest(change: Tensor, weight: Tensor, keep: float, signed: bool = False) -> Tensor:
    """Return `change` (d_out, d_in) with all but the largest relative `keep` of it set to zero."""
    size = weight + _EPSILON if signed else weight.abs() + _EPSILON
    relative = (change / size).abs()
    least = max(1, round(relative.numel() * (1 - keep)) + 1)
    if least > relative.numel():
        return torch.zeros_like(change)
    threshold = relative.flatten().kthvalue(least).values
    return torch.where(relative >= threshold, change, 0.0)
