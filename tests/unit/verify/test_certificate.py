from __future__ import annotations

from math import inf, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.factors.core import Core
from patchkit.verify.certificate import (
    blocks_defect,
    condition_bound,
    core_defect,
    defect,
    norm_bound,
)
from tests.unit.tensors.folders import additive, additive_dense, rotation, rotation_blocks


@given(seed=st.integers(0, 2**32 - 1), error=st.floats(0, 0.1))
def test_the_defect_bounds_what_it_should(seed: int, error: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    basis = torch.linalg.qr(normal(9, 4))[0] + error * normal(9, 4)
    q = torch.linalg.qr(normal(4, 4))[0] + error * normal(4, 4)
    core = Core(basis, torch.zeros(4, 4, dtype=torch.float64), q)
    eye = torch.eye(9, dtype=torch.float64)
    r = eye + basis @ core.turn @ basis.T
    found = float(torch.linalg.matrix_norm(r.T @ r - eye, ord=2))
    assert found <= core_defect(core) + 1e-12


@given(seed=st.integers(0, 2**32 - 1), error=st.floats(0, 0.1))
def test_the_defect_of_blocks_bounds_what_it_should(seed: int, error: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(noise)[0] + error * noise
    whole = torch.block_diag(*q)  # type: ignore[no-untyped-call]
    eye = torch.eye(12, dtype=torch.float64)
    found = float(torch.linalg.matrix_norm(whole.T @ whole - eye, ord=2))
    assert found <= blocks_defect(q) + 1e-12


def test_rotations_in_blocks_are_certified_as_built() -> None:
    factors = [rotation_blocks("input", 20, 1, 4), rotation_blocks("output", 12, 2, 1)]
    assert 0.0 < defect(factors) < 1e-12


def test_rotations_of_both_sides_add_up_to_rounding_errors() -> None:
    assert defect([]) == 0.0
    assert 0.0 <= defect([rotation("input", 20, 1), rotation("output", 12, 2)]) < 1e-12


def test_a_sum_promises_nothing() -> None:
    for extra in (additive(1), additive_dense(1)):
        assert defect([rotation("input", 20, 1), extra]) == inf


def test_bounds_follow_from_the_defect() -> None:
    assert norm_bound(0.0) == condition_bound(0.0) == 0.0
    assert norm_bound(0.21) == pytest.approx(0.1)
    assert condition_bound(0.5) == pytest.approx(sqrt(3) - 1)
    assert condition_bound(1.0) == inf
