"""What an edit reads of preserved knowledge, by hand."""

from __future__ import annotations

import pytest
import torch

from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.verify.behaviour import _leakage
from tests.unit.tensors.folders import D_IN, D_OUT, additive_dense, rotation_blocks

EYE = torch.eye(D_IN, dtype=torch.float64)
PLANE = Rotation("input", 0.3 * EYE[:, :1], EYE[:, 1:2])


def moment(first: float) -> dict[str, torch.Tensor]:
    """Preserved keys whose energy lies in the first direction by this share."""
    rest = torch.full((D_IN - 1,), (1 - first) / (D_IN - 1), dtype=torch.float64)
    return {"w": torch.diag(torch.cat([torch.tensor([first], dtype=torch.float64), rest]))}


def test_it_is_the_energy_in_the_directions_of_the_planes() -> None:
    check = _leakage({"w": [PLANE]}, moment(0.5))
    assert check.value == pytest.approx(0.5 + 0.5 / (D_IN - 1))
    assert check.limit == 2 / D_IN
    assert not check.ok
    assert _leakage({"w": [PLANE]}, moment(0.0)).ok


@pytest.mark.parametrize("other", [additive_dense(1), rotation_blocks("input", D_IN, 1)])
def test_a_factor_that_may_read_anything_has_no_directions(other: Factor) -> None:
    check = _leakage({"w": [PLANE, other]}, moment(0.5))
    assert check.skipped
    assert "no factor reads a few directions" in check.detail


def test_rotations_of_outputs_do_not_count() -> None:
    factors = [PLANE, rotation_blocks("output", D_OUT, 1)]
    alone, both = _leakage({"w": [PLANE]}, moment(0.1)), _leakage({"w": factors}, moment(0.1))
    assert alone.value == both.value
