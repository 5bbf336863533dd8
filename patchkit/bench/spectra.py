"""What a patch does to the spectra of the matrices it edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.factors.action import dense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.patch.patch import Patch
from patchkit.tensors.layout import locate
from patchkit.tensors.torch_dtypes import torch_dtype

TOP = 16
"""Singular directions that count as the top of a matrix."""
_QUANTILES = 17


@dataclass(frozen=True, slots=True)
class Spectra:
    """The worst edited matrix of a patch against the base's, in fp64.

    `norm_ratio` and `condition_ratio` are of the product W₀R (or W₀ + ΔW), the stored ones of the
    same in the base's dtype. `top_overlap` ‖UₖᵀUₖ′‖²_F / k compares the spans of the first 16
    singular vectors, left or right, whichever differ more. Of rotations only, `orthogonality` is
    ‖RᵀR − I‖₂, and `angles` are quantiles of the angles of their planes in radians, ascending.
    """

    norm_ratio: float
    condition_ratio: float
    stored_norm_ratio: float
    stored_condition_ratio: float
    top_overlap: float
    orthogonality: float | None
    angles: tuple[float, ...]


def spectra(model: PreTrainedModel, patch: Patch) -> Spectra:
    """Measure every matrix that `patch` edits; `model` is the base. O(d³) for each."""
    found = [
        _matrix(model.get_submodule(site.module).get_parameter("weight"), patch, name)
        for name, site in locate(model, patch.factors).items()
    ]
    turns = [one.orthogonality for one in found if one.orthogonality is not None]
    return Spectra(
        norm_ratio=_worst([one.norm_ratio for one in found]),
        condition_ratio=_worst([one.condition_ratio for one in found]),
        stored_norm_ratio=_worst([one.stored_norm_ratio for one in found]),
        stored_condition_ratio=_worst([one.stored_condition_ratio for one in found]),
        top_overlap=min(one.top_overlap for one in found),
        orthogonality=max(turns, default=None),
        angles=max((one.angles for one in found), key=lambda angles: angles[-1:]),
    )


def _matrix(weight: Tensor, patch: Patch, name: str) -> Spectra:
    meta, factors = patch.metadata.tensors[name], patch.factors[name]
    base = weight.detach().double()
    product = dense(base, factors, meta.layout)
    before, after = (_svd(matrix) for matrix in (base, product))
    stored = torch.linalg.svdvals(product.to(torch_dtype(meta.dtype)).double())
    return Spectra(
        norm_ratio=_norm(after[1]) / _norm(before[1]),
        condition_ratio=_condition(after[1]) / _condition(before[1]),
        stored_norm_ratio=_norm(stored) / _norm(before[1]),
        stored_condition_ratio=_condition(stored) / _condition(before[1]),
        top_overlap=min(_overlap(before[0], after[0]), _overlap(before[2].T, after[2].T)),
        orthogonality=_orthogonality(factors),
        angles=_angles(factors),
    )


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    return u, values, v


def _norm(values: Tensor) -> float:
    return float(values.norm())


def _condition(values: Tensor) -> float:
    return float(values[0] / values[-1])


def _overlap(before: Tensor, after: Tensor) -> float:
    """Return the mean squared cosine between the spans of the first columns."""
    top = min(TOP, before.shape[1])
    return float((before[:, :top].T @ after[:, :top]).square().sum() / top)


def _orthogonality(factors: Sequence[Factor]) -> float | None:
    """Return the largest ‖RᵀR − I‖₂ of rotations, None where there is a sum."""
    if not all(isinstance(factor, Rotation | RotationBlocks) for factor in factors):
        return None
    return max((_off(factor) for factor in factors), default=0.0)


def _off(turn: Factor) -> float:
    if isinstance(turn, Rotation):
        core = turn.core()
        # R = I + B (Q − I) Bᵀ is orthogonal if B and Q are.
        return max(_distance_to_identity(core.q[None]), _distance_to_identity(core.basis[None]))
    assert isinstance(turn, RotationBlocks)
    return _distance_to_identity(turn.matrices())


def _distance_to_identity(columns: Tensor) -> float:
    """Return the largest ‖QᵀQ − I‖₂ of matrices (b, n, m)."""
    eye = torch.eye(columns.shape[-1], dtype=columns.dtype, device=columns.device)
    return float(torch.linalg.matrix_norm(columns.mT @ columns - eye, ord=2).max())


def _angles(factors: Sequence[Factor]) -> tuple[float, ...]:
    turns = [factor for factor in factors if isinstance(factor, Rotation | RotationBlocks)]
    if not turns or len(turns) < len(factors):
        return ()
    found = torch.cat([turn.angles().double().cpu() for turn in turns])
    points = torch.linspace(0, 1, _QUANTILES, dtype=torch.float64)
    return tuple(torch.quantile(found, points).tolist())


def _worst(ratios: Sequence[float]) -> float:
    return max(ratios, key=lambda ratio: abs(ratio - 1))
