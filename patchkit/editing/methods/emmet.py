"""EMMET (Gupta et al., https://arxiv.org/abs/2403.14236), MEMIT's objective with equality.

    Δ = R (Kᵀ A⁻¹ K + μ I)⁻¹ Kᵀ A⁻¹,   A = λ C

μ = 0 meets every value exactly and λ cancels. With a ridge it is MEMIT with λμ in place of λ.
`docs/methods/emmet.md` has shapes and deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from patchkit.editing.additive import Ridge, start, stored, write
from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.metric import Metric
from patchkit.editing.settings import above, at_least
from patchkit.editing.state import SiteState
from patchkit.editing.targets import TargetOptions

__all__ = ["PROTECTIONS", "REWRITES", "Options", "solve", "solver", "stored"]

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {"nullspace": None, "spectrum": None, "history": None}


@dataclass(frozen=True, slots=True)
class Options(TargetOptions):
    """Values as in `TargetOptions`; `lam` λ and the ridge `mu` μ.

    λ = 10,000 and μ = 0.1 are EasyEdit's for GPT-2 XL.
    """

    lam: float = 10000.0
    mu: float = 0.1

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        TargetOptions.__post_init__(self)
        above(self, 0, "lam")
        at_least(self, 0, "mu")


def solver(options: Options) -> Callable[[SiteState], Ridge]:
    """Return what begins a matrix's solver: the Cholesky factor of λ C."""

    def make(state: SiteState) -> Ridge:
        metric = Metric.of(options.lam * state.statistics.moment.double())
        return start(state, Ridge(metric, options.mu, remembers=state.guard.history))

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
