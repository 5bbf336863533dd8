"""Rotations by example: planes, limits, canonical columns."""

from __future__ import annotations

import math

import pytest
import torch

from patchkit.errors import InvariantError
from patchkit.factors.core import rotate_left, rotate_right
from patchkit.factors.rotation import Rotation, rotation_from_core


def plane(angle: float, d: int = 5, first: int = 0, second: int = 1) -> Rotation:
    eye = torch.eye(d, dtype=torch.float64)
    return Rotation("input", angle * eye[:, first : first + 1], eye[:, second : second + 1])


def test_one_plane_turns_by_its_angle() -> None:
    r = rotate_left(plane(math.pi / 3).core(), torch.eye(5, dtype=torch.float64))
    assert r[0, 0].item() == pytest.approx(0.5)
    assert r[0, 1].item() == pytest.approx(math.sqrt(3) / 2)
    assert r[1, 0].item() == pytest.approx(-math.sqrt(3) / 2)
    assert torch.equal(r[2:, 2:], torch.eye(3, dtype=torch.float64))


def test_right_and_left_are_transposes() -> None:
    core = plane(0.7).core()
    w = torch.arange(15, dtype=torch.float64).reshape(3, 5)
    assert torch.allclose(rotate_right(w, core), rotate_left(plane(-0.7).core(), w.T).T)


def test_zero_columns_are_the_identity() -> None:
    factor = Rotation("output", torch.zeros(4, 2), torch.zeros(4, 2))
    core = factor.core()
    assert torch.equal(core.turn, torch.zeros(4, 4, dtype=torch.float64))
    assert torch.allclose(core.basis.T @ core.basis, torch.eye(4, dtype=torch.float64))
    assert factor.norm() == factor.length() == 0.0


def test_no_columns_are_the_identity() -> None:
    factor = Rotation("input", torch.zeros(4, 0), torch.zeros(4, 0))
    w = torch.ones(2, 4, dtype=torch.float64)
    assert factor.rank == 0
    assert factor.norm() == 0.0
    assert factor.angles().numel() == 0
    assert torch.equal(rotate_right(w, factor.core()), w)


@pytest.mark.parametrize("angle", [64.1, 1e30])
def test_too_large_a_generator_is_refused_before_the_exponential(
    angle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the exponential was computed")

    monkeypatch.setattr(torch.linalg, "matrix_exp", fail)
    for use in (Rotation.core, Rotation.norm, Rotation.angles, Rotation.length):
        with pytest.raises(InvariantError, match="beyond the limit of 64"):
            use(plane(angle))


def test_the_limit_itself_is_allowed() -> None:
    core = plane(64.0).core()
    assert float((core.q.T @ core.q - torch.eye(2, dtype=torch.float64)).abs().max()) < 1e-12


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    x, y = torch.zeros(4, 1), torch.ones(4, 1)
    x[2, 0] = value
    with pytest.raises(InvariantError, match="not finite"):
        Rotation("input", x, y).norm()
    with pytest.raises(InvariantError, match="not finite"):
        Rotation("input", y, x).core()


def test_largest_finite_values_give_a_sentence() -> None:
    big = torch.full((4, 1), torch.finfo(torch.float32).max)
    other = big.clone()
    other[0, 0] = -other[0, 0]
    with pytest.raises(InvariantError, match="radians"):
        Rotation("input", big, other).norm()


def test_shapes_must_agree() -> None:
    with pytest.raises(InvariantError, match=r"\(4, 1\) and \(4, 2\)"):
        Rotation("input", torch.zeros(4, 1), torch.zeros(4, 2))


def test_canonical_columns() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    skew = torch.zeros(6, 6, dtype=torch.float64)
    skew[0, 1], skew[2, 3], skew[4, 5] = 0.2, -4.0, 1e-12
    factor = rotation_from_core(eye, skew - skew.T, "output")
    assert factor.side == "output"
    assert factor.x.dtype == torch.float32
    assert factor.rank == 2
    assert factor.angles().tolist() == pytest.approx([2 * math.pi - 4.0, 0.2], abs=1e-6)
    for column in range(2):
        row = int(factor.x[:, column].abs().argmax())
        assert factor.x[row, column] > 0
        assert factor.y[row, column] == 0


@pytest.mark.parametrize("angle", [math.pi, -math.pi, 3 * math.pi])
def test_half_turns_are_kept(angle: float) -> None:
    found = rotation_from_core(
        torch.eye(3, dtype=torch.float64)[:, :2],
        torch.tensor([[0.0, angle], [-angle, 0.0]], dtype=torch.float64),
        "input",
        dtype=torch.float64,
    )
    r = rotate_left(found.core(), torch.eye(3, dtype=torch.float64))
    assert torch.allclose(r, torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)))


def test_full_turns_are_dropped() -> None:
    skew = torch.tensor([[0.0, 2 * math.pi], [-2 * math.pi, 0.0]], dtype=torch.float64)
    assert rotation_from_core(torch.eye(2, dtype=torch.float64), skew, "input").rank == 0


def test_a_basis_need_not_be_orthonormal() -> None:
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    basis = torch.cat([basis, basis[:, :1]], dim=1)
    half = torch.randn(4, 4, generator=generator, dtype=torch.float64) / 10
    skew = half - half.T
    found = rotation_from_core(basis, skew, "input", dtype=torch.float64)
    wanted = torch.linalg.matrix_exp(basis @ skew @ basis.T)
    eye = torch.eye(7, dtype=torch.float64)
    assert torch.allclose(rotate_left(found.core(), eye), wanted, atol=1e-12)


def test_power_works_in_double_precision() -> None:
    factor = Rotation("input", torch.rand(4, 1), torch.rand(4, 1))
    assert factor.power(0.1).x.dtype == torch.float64
    assert factor.inverse().x.dtype == torch.float32
