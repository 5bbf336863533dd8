"""What MEMIT, EMMET and AlphaEdit share: a ridge solution, layer by layer, batch by batch.

With keys K (d_in, u) and residuals R (d_out, u), all of them are

    Δ = R (μ I + KᵀNA⁻¹NᵀK)⁻¹ KᵀNA⁻¹Nᵀ

for a symmetric A, a ridge μ and a basis N of allowed inputs (or none): u × u systems, with A
decomposed once for each matrix and grown by the keys of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.metric import Metric
from patchkit.editing.rows import mean_key
from patchkit.editing.spread import spread
from patchkit.editing.state import SiteState
from patchkit.editing.targets import TargetOptions
from patchkit.errors import SolveError
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.kinds import Factor
from patchkit.tensors.layout import Site


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A, μ and N of the formula above; `remembers` says that written keys are added to A."""

    metric: Metric
    ridge: float = 1.0
    basis: Tensor | None = None  # (d_in, m)
    remembers: bool = False

    def factor(self, keys: Tensor, residual: Tensor) -> Additive:
        """Return Δ for keys (u, d_in) and residuals (u, d_out) as l (d_out, u), f (u, d_in).

        Raises SolveError when keys depend on each other and there is no ridge.
        """
        inside = self._inside(keys)  # (m, u)
        solved = self.metric.solve(inside)
        system = inside.T @ solved
        system.diagonal().add_(self.ridge)
        factor, failed = torch.linalg.cholesky_ex(system)
        if int(failed):
            raise SolveError(
                f"the keys of {len(keys)} facts depend on each other, so that their values cannot "
                "all be met",
                hint="write facts of one subject together (joint = true), or set a ridge mu",
            )
        rows = torch.cholesky_solve(solved.T, factor)  # (u, m)
        return Additive(residual.double().T, rows if self.basis is None else rows @ self.basis.T)

    def after(self, keys: Tensor) -> Ridge:
        """Return the solver for the next batch, once `keys` (u, d_in) have been written."""
        if not (self.remembers and len(keys)):
            return self
        return replace(self, metric=self.metric.plus(self._inside(keys)))

    def _inside(self, keys: Tensor) -> Tensor:
        columns = keys.double().T
        return columns if self.basis is None else self.basis.T @ columns


def start(state: SiteState, solver: Ridge) -> Ridge:
    """Return what the matrix's solver is now: `solver`, with the keys of carried patches."""
    return solver.after(mean_key(state.keys)) if len(state.keys) else solver


def write(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: TargetOptions,
    make: Callable[[SiteState], Ridge],
    finished: Finished,
    sift: Callable[[Additive, SiteState], Additive | AdditiveDense] = lambda factor, state: factor,
) -> dict[int, SiteState]:
    """Write one batch into all of `states`, first layer first, and return the new ones.

    `make` begins a matrix's solver, `sift` may change each factor. The model holds the new weights
    on return.
    """
    started = {
        layer: replace(state, solver=state.solver or make(state)) for layer, state in states.items()
    }

    def step(state: SiteState, keys: Tensor, missing: Tensor) -> SiteState:
        factor = sift(state.solver.factor(keys, missing), state)
        return state.changed(guarded(factor, state))

    def commit(state: SiteState, keys: Tensor) -> SiteState:
        return replace(state, solver=state.solver.after(keys))

    return spread(model, started, batch, options, step, finished, commit)


def stored(site: Site, facts: int, options: object) -> int:
    """Return the numbers of a sum whose rank is at most that of its residuals."""
    return min(facts, site.d_out, site.d_in) * (site.d_out + site.d_in)


def guarded(factor: Additive | AdditiveDense, state: SiteState) -> Factor:
    """Return the factor without what the state's guard forbids."""
    if isinstance(factor, Additive):
        return Additive(*state.guard.additive(factor.l, factor.f))
    return AdditiveDense(state.guard.dense(factor.d))
