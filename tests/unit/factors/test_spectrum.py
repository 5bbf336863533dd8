from __future__ import annotations

import math

import pytest
import torch

from patchkit.factors.spectrum import condition


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_ratio_of_extreme_singular_values(dtype: torch.dtype) -> None:
    matrix = torch.diag(torch.tensor([4.0, -2.0, 0.5])).to(dtype)
    assert condition(matrix) == pytest.approx(8.0)
    assert condition(torch.cat([matrix, torch.zeros(2, 3, dtype=dtype)])) == pytest.approx(8.0)


def test_matrices_without_a_condition() -> None:
    assert condition(torch.zeros(3, 4)) == math.inf
    assert math.isnan(condition(torch.tensor([[1.0, math.nan]])))
    assert math.isnan(condition(torch.tensor([[1.0, math.inf]])))
