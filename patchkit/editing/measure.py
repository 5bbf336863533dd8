"""What an edit did to one matrix, measured from its factors and its keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from patchkit.editing.confinement import Confinement
from patchkit.editing.report import TensorResult
from patchkit.editing.state import SiteState
from patchkit.factors.action import Factor, dense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation
from patchkit.factors.spectrum import condition


def measure_tensor(
    state: SiteState,
    factors: Sequence[Factor],
    keys: Tensor,
    confinement: Confinement,
    stored: torch.dtype,
) -> TensorResult:
    """Compare W₀R with W₀ in fp64, and with what is left of it in the `stored` dtype.

    `factors` are all that has been done from the base on, the last of them this patch's; `keys`
    (n, d_in) are those of its facts.
    """
    base = state.base.double()
    product = dense(base, factors, "linear")  # (d_out, d_in)
    change = product - base
    moment = state.statistics.moment.double()
    return TensorResult(
        name=state.site.tensor,
        layer=state.site.layer,
        rank=factors[-1].rank,
        max_angle_deg=math.degrees(_largest_angle(factors[-1])),
        displacement=math.sqrt(_energy(change, moment) / _energy(base, moment)),
        rounding=_lost(product, change, keys.double(), stored),
        norm_ratio=float(product.norm() / base.norm()),
        condition_ratio=condition(product) / condition(base),
        free_share=float(confinement.share(keys).mean()),
        turned=all(isinstance(factor, Rotation | RotationBlocks) for factor in factors),
    )


def reaches(state: SiteState, keys: Tensor, confinement: Confinement) -> Tensor:
    """Return each fact's written change relative to the most its free part could carry, (n,).

    A rotation moves a key's free part of length b to another direction of the same length, so its
    output changes by at most 2 ‖W‖₂ b (norm budget of `docs/mathematics.md`).
    """
    written = (keys @ (state.weight - state.base).T).norm(dim=1)
    free = (confinement.share(keys).clamp_min(0).sqrt() * keys.norm(dim=1)).clamp_min(1e-12)
    share: Tensor = written / (2 * torch.linalg.matrix_norm(state.base, ord=2) * free)
    return share


def _energy(matrix: Tensor, moment: Tensor) -> float:
    """Return E‖M k‖² over the preserved keys; the moment is of fp32, so zero can come out below."""
    return max(0.0, float(((matrix @ moment) * matrix).sum()))


def _lost(product: Tensor, change: Tensor, keys: Tensor, stored: torch.dtype) -> float:
    """Return ‖(stored(W) − W)K‖ / ‖ΔW K‖, the part of the edit that storing rounds away."""
    rounding = product.to(stored).double() - product
    return float((keys @ rounding.T).norm() / (keys @ change.T).norm().clamp_min(1e-300))


def _largest_angle(factor: Factor) -> float:
    return factor.norm() if isinstance(factor, Rotation | RotationBlocks) else 0.0
