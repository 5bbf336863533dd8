from __future__ import annotations

import pytest
import torch

from patchkit.errors import InvariantError
from patchkit.factors.action import Action, dense
from patchkit.factors.additive import Additive
from patchkit.factors.rotation import Rotation


def output_rotation() -> Rotation:
    generator = torch.Generator().manual_seed(0)
    return Rotation(
        "output", torch.randn(6, 1, generator=generator), torch.randn(6, 1, generator=generator)
    )


def test_no_factors_change_nothing() -> None:
    w = torch.rand(3, 4)
    assert torch.equal(dense(w, [], "linear"), w.double())


def test_rows_before_the_prepass_are_refused() -> None:
    action = Action.of([output_rotation()], "linear")
    w = torch.rand(6, 4)
    with pytest.raises(InvariantError, match="6 rows, but the prepass has seen 0"):
        action.rows(0, w)
    action.prepass(0, w[:4])
    with pytest.raises(InvariantError, match="has seen 4"):
        action.rows(0, w)


def test_prepass_keeps_no_more_than_the_dimensions_that_mix() -> None:
    action = Action.of([output_rotation()], "linear")
    action.prepass(0, torch.rand(6, 1000))
    assert action.normal.left is not None
    assert action.normal.left.basis.shape == (6, 2)


def test_results_are_double_precision_whatever_comes_in() -> None:
    assert dense(torch.rand(6, 4).bfloat16(), [output_rotation()], "linear").dtype == torch.float64


def test_factors_of_different_sizes_are_refused() -> None:
    other = Additive(torch.zeros(5, 1), torch.zeros(1, 4))
    with pytest.raises(InvariantError, match="output size: 6 and 5"):
        Action.of([output_rotation(), other], "linear")
    narrow = Rotation("input", torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(InvariantError, match="input size: 4 and 3"):
        Action.of([other, narrow], "linear")
