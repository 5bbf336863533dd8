"""A stored tensor against what factors make of its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from patchkit.factors import Layout
from patchkit.factors.action import Action, Factor
from patchkit.factors.streaming import changed_rows, stored_rows
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify.prediction import tolerances


@dataclass(frozen=True, slots=True)
class Match:
    """How near a stored W″ is to the prediction W′ (fp64) from W.

    `exact`: rounding W′ gives the bytes of W″. `worst` is the largest |W″ − W′| in units of what
    `verify` allows, where rounding does not give them. `explained` is
    1 − ‖W″ − W′‖²_F / ‖W″ − W‖²_F, the share of the change that the factors make.
    """

    exact: bool
    worst: float
    explained: float

    @property
    def within_rounding(self) -> bool:
        """Whether the prediction and the tensor differ by no more than rounding."""
        return self.worst <= 1


def match(
    base: Checkpoint, other: Checkpoint, name: str, factors: Sequence[Factor], layout: Layout
) -> Match:
    """Compare one tensor of `other` with `factors` applied to that of `base`, of the same shape.

    O(d_out d_in m) in blocks of rows; InvariantError for factors that do not fit.
    """
    action = Action.of(factors, layout)
    worst, rest, change, exact = 0.0, 0.0, 0.0, True
    pairs = zip(changed_rows(base, name, action), stored_rows(other, name), strict=True)
    for (_, old, new), (_, found) in pairs:
        if not torch.equal(new.to(found.dtype).view(torch.uint8), found.view(torch.uint8)):
            exact = False
            # A value that is not a number is off by more than any tolerance.
            worst = max(worst, float(tolerances(new, found).nan_to_num_(nan=torch.inf).max()))
        stored = found.to(torch.float64)
        change += float((stored - old).square_().sum())
        rest += float(stored.sub_(new).square_().sum())
    return Match(exact, worst, 1 - rest / change if change else 1.0)
