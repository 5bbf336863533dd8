"""MEMIT (Meng et al., https://arxiv.org/abs/2210.07229).

    Δ = R Kᵀ (λ C + K Kᵀ)⁻¹

with C = E[k kᵀ] over preserved keys. `docs/methods/memit.md` has shapes and deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from patchkit.editing.additive import Ridge, start, stored, write
from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.metric import Metric
from patchkit.editing.settings import above
from patchkit.editing.state import SiteState
from patchkit.editing.targets import TargetOptions

__all__ = ["PROTECTIONS", "REWRITES", "Options", "solve", "solver", "stored"]

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {"nullspace": None, "spectrum": None, "history": None}


@dataclass(frozen=True, slots=True)
class Options(TargetOptions):
    """Values as in `TargetOptions`; `lam` λ is the weight of preserved knowledge, in tokens.

    λ = 15,000 is the published value for GPT-J and Llama-3-8B. `history` adds the keys of earlier
    batches to the bracket (the sequential variant of AlphaEdit's repository); published: off.
    """

    lam: float = 15000.0
    history: bool = False

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        TargetOptions.__post_init__(self)
        above(self, 0, "lam")


def solver(options: Options) -> Callable[[SiteState], Ridge]:
    """Return what begins a matrix's solver: the Cholesky factor of λ C."""

    def make(state: SiteState) -> Ridge:
        metric = Metric.of(options.lam * state.statistics.moment.double())
        return start(state, Ridge(metric, remembers=options.history or state.guard.history))

    return make


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts; see `patchkit.editing.additive.write`."""
    return write(model, states, batch, options, solver(options), finished)
