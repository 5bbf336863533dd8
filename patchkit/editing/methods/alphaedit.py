"""AlphaEdit (Fang et al., https://arxiv.org/abs/2410.02355): MEMIT inside the null space of C.

    Δ = R Kᵀ P (Kₚ Kₚᵀ P + K Kᵀ P + L₂ I)⁻¹,   P = N Nᵀ

with N the eigenvectors of C below a threshold. Solved in coordinates of N, where the bracket is
symmetric (m, m) and the identity at first, so that a batch costs u × u systems.
`docs/methods/alphaedit.md` has shapes and deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.additive import Ridge, start, stored, write
from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.metric import Metric
from patchkit.editing.settings import above
from patchkit.editing.state import SiteState
from patchkit.editing.targets import TargetOptions
from patchkit.errors import SolveError

__all__ = ["PROTECTIONS", "REWRITES", "Options", "solve", "solver", "stored"]

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {
    "nullspace": "it stays in the null space already, by its option threshold",
    "spectrum": None,
    "history": "it protects earlier facts already, by its option history",
}


@dataclass(frozen=True, slots=True)
class Options(TargetOptions):
    """Values as in `TargetOptions`; `threshold`, `l2` L₂ and `history`.

    A direction is free when preserved keys have less than `threshold` energy in it, in mean
    eigenvalues of C; `l2` is in units of a preserved key's mean energy E‖k‖². Published are the
    absolute 0.02 and 10 (1 in EasyEdit): `published_scales` takes both as they stand. `history`
    adds the keys of earlier batches to the bracket, as published.
    """

    threshold: float = 0.1
    l2: float = 0.01
    history: bool = True

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        TargetOptions.__post_init__(self)
        above(self, 0, "threshold", "l2")


def solver(options: Options) -> Callable[[SiteState], Ridge]:
    """Return what begins a matrix's solver: the null space of C and L₂ I on it."""

    def make(state: SiteState) -> Ridge:
        basis = null_space(state, options)
        energy = float(state.statistics.moment.diagonal().double().sum())
        scale = options.l2 * (1.0 if options.published_scales else energy)
        metric = Metric.identity(basis.shape[1], scale, basis)
        return start(state, Ridge(metric, basis=basis, remembers=options.history))

    return make


def null_space(state: SiteState, options: Options) -> Tensor:
    """Return N (d_in, m) in fp64; SolveError when no direction is below the threshold."""
    unit = 1.0 if options.published_scales else state.statistics.energy
    values, vectors = torch.linalg.eigh(state.statistics.moment.double())
    basis: Tensor = vectors[:, values < options.threshold * unit]
    if not basis.shape[1]:
        raise SolveError(
            f"preserved keys have at least {float(values[0]) / unit:.3g} energy in every "
            f"direction, and the threshold is {options.threshold:g}",
            hint="raise the option threshold",
        )
    return basis


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts; see `patchkit.editing.additive.write`."""
    return write(model, states, batch, options, solver(options), finished)
