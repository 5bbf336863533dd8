"""MOSE as its paper has it (https://arxiv.org/abs/2601.07873): an output rotation by Procrustes.

    min over RᵀR = I:  λ E‖R W k − W₀k‖² + Σ_facts ‖R W k − v‖² + η n mean_earlier ‖R W k − v‖²

is solved by R = U Vᵀ of the singular value decomposition

    M = λ W₀ C Wᵀ + Σ v (Wk)ᵀ + η n mean v (Wk)ᵀ = U Σ Vᵀ     (d_out, d_out)

with C = E[k kᵀ] over preserved keys, W₀ the base's matrix and W the current one; the rotation is
made special by flipping the least singular direction. A bias stays where it is: values are those
of the matrix alone, y′ = R (y − b) + b. `docs/methods/mose.md` has shapes and deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.settings import above, at_least
from patchkit.editing.spread import spread
from patchkit.editing.state import SiteState
from patchkit.editing.targets import TargetOptions
from patchkit.factors.action import dense
from patchkit.factors.blocks import RotationBlocks, blocks_from_matrices
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import rotation_from_core
from patchkit.tensors.layout import Site

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {
    "nullspace": "an output-side rotation turns what every key gives, so no key is out of its way",
    "spectrum": None,
    "history": "it protects earlier facts already, by its option history",
}


@dataclass(frozen=True, slots=True)
class Options(TargetOptions):
    """Values as in `TargetOptions`; the rest weighs what R should keep against what it writes.

    `lam` λ is the weight of preserved knowledge in tokens (its published value is not known),
    `history` η that of all earlier facts together, relative to the batch. `drift` measures
    preserved outputs and earlier values against the base and what they were first given; without
    it, against what the last batch left, as every batch alone would. Planes that turn by less than
    `tolerance` radians are left out where the rest is then smaller than the whole block.
    """

    lam: float = 10.0
    history: float = 1.0
    drift: bool = True
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        TargetOptions.__post_init__(self)
        above(self, 0, "lam", "tolerance")
        at_least(self, 0, "history")


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts; the model holds the new weights on return."""

    def step(state: SiteState, keys: Tensor, missing: Tensor) -> SiteState:
        cross = correlation(state, keys.double(), missing.double(), options)
        return turned(state, procrustes(cross, state.guard.writes))

    return spread(model, states, batch, options, step, finished)


def finish(states: Mapping[int, SiteState], options: Options) -> dict[int, SiteState]:
    """Store each rotation by its planes where that is smaller."""
    return {
        layer: state.with_factors([_smaller(factor, options) for factor in state.factors])
        for layer, state in states.items()
    }


def stored(site: Site, facts: int, options: Options) -> int:
    """Return the numbers of one whole block."""
    return site.d_out * (site.d_out - 1) // 2


def correlation(state: SiteState, keys: Tensor, missing: Tensor, options: Options) -> Tensor:
    """Return M (d_out, d_out) for keys (n, d_in) whose outputs lack `missing` (n, d_out); fp64."""
    weight, base = state.weight.double(), state.base.double()
    given = keys @ weight.T  # (n, d_out)
    kept = base if options.drift else weight
    cross = (given + missing).T @ given
    cross += options.lam * (kept @ state.statistics.moment.double()) @ weight.T
    if len(state.keys) and options.history:
        before = state.keys.flatten(0, 1).double() @ weight.T  # (h c, d_out)
        values = state.values.flatten(0, 1).double() if options.drift else before
        cross += options.history * len(keys) / len(before) * values.T @ before
    return cross


def procrustes(cross: Tensor, fixed: Tensor | None = None) -> Tensor:
    """Return the rotation R (d, d) that maximises tr(RᵀM), so that it minimises the objective.

    `fixed` (d, k), orthonormal, are directions that R leaves where they are: it is then
    I + N (Q − I) Nᵀ with N their complement and Q the solution for NᵀMN. det R = 1; where the
    orthogonal solution is a reflection, its least singular direction is turned back, which costs
    the least, 2 σ_min.
    """
    if fixed is not None:
        free = torch.linalg.qr(fixed, mode="complete")[0][:, fixed.shape[1] :]
        inner = procrustes(free.T @ cross @ free)
        inner.diagonal().sub_(1.0)
        around: Tensor = free @ inner @ free.T
        return around + torch.eye(len(cross), dtype=cross.dtype, device=cross.device)
    left, _, right = torch.linalg.svd(cross)
    rotation: Tensor = left @ right
    if float(torch.linalg.det(rotation)) < 0:
        left[:, -1] *= -1
        rotation = left @ right
    return rotation


def turned(state: SiteState, rotation: Tensor) -> SiteState:
    """Return the state after R (d_out, d_out), as one factor with all rotations of this edit."""
    eye = torch.eye(len(rotation), dtype=torch.float64, device=rotation.device)
    total = rotation @ dense(eye, state.factors, "linear")
    factor = blocks_from_matrices(total[None], "output", dtype=torch.float64)
    return state.with_factors([factor])


def _smaller(factor: Factor, options: Options) -> Factor:
    """Return a rotation of one block by its planes if these take less room than its triangle."""
    if not isinstance(factor, RotationBlocks) or factor.blocks != 1:
        return factor
    (skew,) = factor.generators()
    eye = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    planes = rotation_from_core(
        eye, skew, factor.side, tolerance=options.tolerance, dtype=torch.float64
    )
    return planes if 2 * planes.x.numel() < factor.s.numel() else factor
