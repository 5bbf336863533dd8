"""A patched checkpoint against what base and factors predict, tensor by tensor."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from patchkit.factors.action import Action
from patchkit.factors.streaming import changed_rows, stored_rows
from patchkit.patch.filestack import FileStack
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import spacing

RMS_SHARE = 1e-6
"""A stored value may be off by one unit in its last place, or by this share of its row's rms."""
_BYTES = 8 << 20


def difference(base: Checkpoint, patched: Checkpoint, name: str, stack: FileStack) -> str | None:
    """Say how an edited tensor differs from its prediction in fp64, None if it does not."""
    if problem := unlike(base, patched, name):
        return problem
    action = Action.of(stack.factors(name), stack.layout(name))
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


def same_bytes(base: Checkpoint, patched: Checkpoint, name: str) -> bool:
    """Whether two checkpoints hold the same bytes of a tensor of one shape and type."""
    pairs = zip(base.blocks(name, _BYTES), patched.blocks(name, _BYTES), strict=True)
    return all(one == two for (_, one), (_, two) in pairs)


def tolerances(new: Tensor, stored: Tensor) -> Tensor:
    """Return |stored − new| (n, columns) in units of what is allowed there.

    `new` is fp64, `stored` of any type. Values near zero come out of sums of large terms: there
    honest results differ between BLAS builds by many units in the last place, hence the rms.
    """
    kept = stored.to(torch.float64)
    unit = spacing(torch.maximum(new.abs(), kept.abs()), stored.dtype)
    rms = new.square().mean(dim=1, keepdim=True).sqrt()
    return (kept - new).abs() / torch.maximum(unit, RMS_SHARE * rms)
