"""PRUNE (Ma et al., https://arxiv.org/abs/2405.16821): a host's whole update, once restrained.

With dW = Σ σ u vᵀ the sum of all updates and s the largest singular value of the unedited matrix,
every σ > s becomes

    log_a(σ) − log_a(s) + s

once, after the last batch, and the matrix becomes W₀ + dW′. `docs/methods/prune.md` has the
deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.additive import stored
from patchkit.editing.batch import Batch
from patchkit.editing.merging import singular_values
from patchkit.editing.methods import Finished, find_method
from patchkit.editing.methods.hosts import LOW_RANK_HOSTS, host_options
from patchkit.editing.settings import above, one_of
from patchkit.editing.state import SiteState
from patchkit.factors.action import dense
from patchkit.factors.additive import Additive

__all__ = ["PROTECTIONS", "REWRITES", "Options", "finish", "restrained", "solve", "stored"]

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {"nullspace": None, "spectrum": None, "history": None}


@dataclass(frozen=True, slots=True)
class Options:
    """`base` is a in the logarithm (1.2, 1.5, 2 or e in the released code).

    `shape` `linear` puts the mean of σ and s in the place of the logarithm. `host` is the method
    whose updates are restrained, with its own `host_options`. `doubled` adds dW′ to the edited
    matrix instead of the unedited one, W₀ + dW + dW′, as AlphaEdit's repository does.
    """

    base: float = math.e
    shape: Literal["log", "linear"] = "log"
    host: str = "memit"
    host_options: Any = None
    doubled: bool = False

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        above(self, 1, "base")
        one_of(self, "shape", ("log", "linear"))
        one_of(self, "host", LOW_RANK_HOSTS)
        object.__setattr__(self, "host_options", host_options(self.host, self.host_options))


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts exactly as the host does."""
    return find_method(options.host).solve(model, states, batch, options.host_options, finished)


def finish(states: Mapping[int, SiteState], options: Options) -> dict[int, SiteState]:
    """Restrain what all batches did together."""
    return {layer: _finished(state, options) for layer, state in states.items()}


def _finished(state: SiteState, options: Options) -> SiteState:
    before = dense(state.base.double(), state.carried, "linear")
    largest = float(torch.linalg.matrix_norm(before, ord=2))
    factors = cast(tuple[Additive, ...], state.factors)
    less = restrained(factors, largest, options)
    return state.with_factors((*factors, less) if options.doubled else (less,))


def restrained(factors: tuple[Additive, ...], largest: float, options: Options) -> Additive:
    """Return Σ l f with its singular values above `largest` restrained, in its least rank."""
    left, sizes, right = singular_values(factors)
    kept = torch.where(sizes > largest, _less(sizes, largest, options), sizes)
    return Additive(left * kept, right.T)


def _less(sizes: Tensor, largest: float, options: Options) -> Tensor:
    if options.shape == "linear":
        return (sizes + largest) / 2
    return (sizes.log() - math.log(largest)) / math.log(options.base) + largest
