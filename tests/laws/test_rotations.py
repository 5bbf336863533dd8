"""Laws that every finite generator obeys, whatever its values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.factors.kinds import Turn, tensors_of
from patchkit.factors.mixing import Mixing
from patchkit.factors.rotation import Rotation, rotation_from_core
from tests.laws.strategies import D_IN, D_OUT, dense_rotation, normal, rotations, turns


def as_matrix(factor: Turn) -> torch.Tensor:
    return Mixing.of(factor).left(torch.eye(factor.size, dtype=torch.float64))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(data=st.data())
def test_any_generator_is_orthogonal(dtype: torch.dtype, data: st.DataObject) -> None:
    r = as_matrix(data.draw(turns(dtype=dtype, most=62.0)))
    eye = torch.eye(len(r), dtype=torch.float64)
    assert gap(r.T @ r, eye) < 1e-11
    assert float(torch.linalg.det(r)) == pytest.approx(1.0, abs=1e-10)


@given(turns())
def test_the_exponential_is_the_dense_one(factor: Turn) -> None:
    assert gap(as_matrix(factor), dense_rotation(factor)) < 1e-12


@given(turns())
def test_inverse_undoes(factor: Turn) -> None:
    r = as_matrix(factor)
    back = as_matrix(factor.inverse())
    assert gap(r @ back, torch.eye(len(r), dtype=torch.float64)) < 1e-12
    assert gap(back, r.T) < 1e-12
    again = tensors_of(factor.inverse().inverse())
    assert all(torch.equal(again[name], part) for name, part in tensors_of(factor).items())


@given(turns(dtype=torch.float32), st.floats(-2, 2), st.floats(-2, 2))
def test_strengths_of_one_factor_add(factor: Turn, a: float, b: float) -> None:
    product = as_matrix(factor.power(a)) @ as_matrix(factor.power(b))
    assert gap(product, as_matrix(factor.power(a + b))) < 1e-11


@given(turns(), st.integers(-3, 3))
def test_whole_powers_are_repeated_products(factor: Turn, times: int) -> None:
    wanted = torch.linalg.matrix_power(as_matrix(factor), times)
    assert gap(as_matrix(factor.power(times)), wanted) < 1e-11


@given(turns(sides=("input",)), st.integers(0, 2**32 - 1))
def test_singular_values_are_kept(factor: Turn, seed: int) -> None:
    w = normal(torch.Generator().manual_seed(seed), D_OUT, D_IN)
    before, after = torch.linalg.svdvals(w), torch.linalg.svdvals(w @ as_matrix(factor))
    assert gap(before, after) < 1e-12 * float(before[0]) * 10


@given(turns())
def test_length_and_norm_follow_from_the_angles(factor: Turn) -> None:
    angles = factor.angles()
    assert angles.shape == (factor.rank,)
    assert bool((angles[:-1] >= angles[1:]).all())
    assert factor.norm() == pytest.approx(float(angles[0]), abs=1e-12)
    assert factor.length() == pytest.approx(math.sqrt(2 * float(angles.square().sum())), rel=1e-9)


@given(rotations(most=20.0))
def test_canonical_generator_is_the_same_rotation(factor: Rotation) -> None:
    core = factor.core()
    again = rotation_from_core(core.basis, core.skew, factor.side, dtype=torch.float64)
    assert gap(as_matrix(again), as_matrix(factor)) < 1e-12
    if again.rank:
        angles = again.angles()
        assert float(angles[0]) <= math.pi + 1e-12
        assert float(angles[-1]) >= 1e-9 * (1 - 1e-6)
    assert again.rank <= factor.rank


@given(rotations(most=3.0), st.integers(0, 2**32 - 1))
def test_canonical_generator_does_not_depend_on_the_basis(factor: Rotation, seed: int) -> None:
    core = factor.core()
    m = len(core.skew)
    turn = torch.linalg.qr(normal(torch.Generator().manual_seed(seed), m, m))[0]
    one = rotation_from_core(core.basis, core.skew, factor.side, dtype=torch.float64)
    two = rotation_from_core(
        core.basis @ turn, turn.T @ core.skew @ turn, factor.side, dtype=torch.float64
    )
    assert gap(as_matrix(one), as_matrix(two)) < 1e-12
