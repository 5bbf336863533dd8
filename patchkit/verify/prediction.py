"""A patched checkpoint against what base and factors predict, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from patchkit.factors import Layout
from patchkit.factors.action import Action, Factor
from patchkit.patch.patch import Patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify.weights import changed_rows, stored_rows

RMS_SHARE = 1e-6
"""A stored value may be off by one unit in its last place, or by this share of its row's rms."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """How one tensor came to be: its layout, and all factors of all patches in order."""

    layout: Layout
    factors: tuple[Factor, ...]


def predictions(patches: Sequence[Patch]) -> dict[str, Prediction]:
    """Return what patches, applied in order, do to each tensor."""
    found: dict[str, Prediction] = {}
    for patch in patches:
        for name, meta in patch.metadata.tensors.items():
            earlier = found[name].factors if name in found else ()
            found[name] = Prediction(meta.layout, (*earlier, *patch.factors[name]))
    return found


def difference(
    base: Checkpoint, patched: Checkpoint, name: str, prediction: Prediction
) -> str | None:
    """Say how an edited tensor differs from its prediction in fp64, None if it does not."""
    if problem := unlike(base, patched, name):
        return problem
    action = Action.of(prediction.factors, prediction.layout)
    off, worst = 0, 0.0
    pairs = zip(changed_rows(base, name, action), stored_rows(patched, name), strict=True)
    for (_, _, new), (_, stored) in pairs:
        error = tolerances(new, stored)
        off += int((~(error <= 1)).sum())  # not a number counts as off
        worst = max(worst, float(error.max()))
    total = prod(base.tensor(name).info.shape)
    return f"differs in {off} of {total} values, by up to {worst:.3g} tolerances" if off else None


def unlike(base: Checkpoint, patched: Checkpoint, name: str) -> str | None:
    """Say why two checkpoints cannot hold the same tensor, None if they can."""
    if name not in base.tensors or name not in patched.tensors:
        return "is not in both checkpoints"
    expected, found = base.tensor(name).info, patched.tensor(name).info
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return f"is {found.shape} {found.dtype}, expected {expected.shape} {expected.dtype}"
    return None


def tolerances(new: Tensor, stored: Tensor) -> Tensor:
    """Return |stored − new| (n, columns) in units of what is allowed there.

    `new` is fp64, `stored` of any type. Values near zero come out of sums of large terms: there
    honest results differ between BLAS builds by many units in the last place, hence the rms.
    """
    kind, kept = torch.finfo(stored.dtype), stored.to(torch.float64)
    size = torch.maximum(new.abs(), kept.abs()).clamp_min(kind.smallest_normal)
    unit = torch.ldexp(torch.full_like(size, kind.eps), torch.frexp(size).exponent - 1)
    rms = new.square().mean(dim=1, keepdim=True).sqrt()
    return (kept - new).abs() / torch.maximum(unit, RMS_SHARE * rms)
