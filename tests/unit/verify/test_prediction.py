from __future__ import annotations

import math

import pytest
import torch

from patchkit.verify.prediction import tolerances

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_within_half_a_unit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(50, 40, generator=generator, dtype=torch.float64)
    found = tolerances(new, new.to(dtype))
    assert float(found.max()) <= 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_one_unit_is_allowed_and_two_are_not(dtype: torch.dtype) -> None:
    new = torch.tensor([[1.5, -3.0, 0.1, 1.0]], dtype=torch.float64).to(dtype)
    infinity = torch.tensor(math.inf, dtype=dtype)
    one = torch.nextafter(new.abs(), infinity)
    two = torch.nextafter(one, infinity)
    assert float(tolerances(new.abs().double(), one).max()) == 1.0
    assert float(tolerances(new.abs().double(), two).min()) > 1.0


def test_values_near_zero_are_measured_against_their_row() -> None:
    new = torch.tensor([[1.0, 1e-12], [1e-9, 1e-12]], dtype=torch.float64)
    stored = torch.tensor([[1.0, 5e-7], [1e-9, 5e-7]])
    found = tolerances(new, stored)
    assert found[0, 1] < 1
    assert found[1, 1] > 1


def test_zeros_match_zeros_and_nothing_matches_nan() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.equal(tolerances(zero, torch.zeros(1, 2)), zero)
    nan = torch.tensor([[math.nan, 0.0]])
    assert not bool((tolerances(zero, nan) <= 1).all())
