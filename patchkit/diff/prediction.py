"""A stored tensor against what factors make of its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from patchkit.factors import Layout
from patchkit.factors.action import Action, Factor
from patchkit.factors.streaming import changed_rows, stored_rows
from patchkit.patch.parts import tensor_bytes
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify.prediction import tolerances


@dataclass(frozen=True, slots=True)
class Match:
    """How near a stored W″ is to the prediction W′ (fp64) from W.

    `exact`: rounding W′ gives the bytes of W″. `worst` is the largest |W″ − W′| in units of what
    `verify` allows, at most 1 where every value is one rounding away. `explained` is
    1 − ‖W″ − W′‖²_F / ‖W″ − W‖²_F, the share of the change that the factors make.
    """

    exact: bool
    worst: float
    explained: float

    @property
    def within_rounding(self) -> bool:
        """Whether the prediction and the tensor differ by no more than rounding."""
        return self.exact or self.worst <= 1


def match(
    base: Checkpoint, other: Checkpoint, name: str, factors: Sequence[Factor], layout: Layout
) -> Match:
    """Compare one tensor of `other` with `factors` applied to that of `base`, of the same shape.

    O(d_out d_in m) in blocks of rows; InvariantError for factors that do not fit.
    """
    action = Action.of(factors, layout)
    ours, theirs = sha256(), sha256()
    worst, rest, change = 0.0, 0.0, 0.0
    pairs = zip(changed_rows(base, name, action), stored_rows(other, name), strict=True)
    for (_, old, new), (_, found) in pairs:
        ours.update(tensor_bytes(new.to(found.dtype)))
        theirs.update(tensor_bytes(found))
        # A value that is not a number is off by more than any tolerance.
        worst = max(worst, float(tolerances(new, found).nan_to_num(nan=torch.inf).max()))
        rest += float((found - new).square().sum())
        change += float((found.to(torch.float64) - old.to(torch.float64)).square().sum())
    explained = 1 - rest / change if change else 1.0
    return Match(ours.digest() == theirs.digest(), worst, explained)
