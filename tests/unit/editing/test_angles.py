"""The functions behind a rotation's exponential, against the exponential and their slopes."""

import pytest
import torch
from torch import Tensor

from patchkit.editing.angles import _PAIRS, angles


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.1, 1.0, 5.0])
def test_they_are_the_exponential_of_the_generator(scale: float) -> None:
    basis = torch.linalg.qr(random(12, 9))[0]
    p, x = basis[:, :4], scale * basis[:, 4:] @ random(5, 4, seed=1)
    turned, slid, bent = angles(x.T @ x)
    eye = torch.eye(12, dtype=torch.float64)
    found = eye + (p @ turned + x @ slid) @ p.T + (x @ bent - p @ slid) @ x.T
    wanted = torch.linalg.matrix_exp(x @ p.T - p @ x.T)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_slopes_hold_where_angles_coincide() -> None:
    start = random(7, 5)
    start[:, 1] = start[:, 0]
    start[:, 3] = 0.0
    columns = torch.linalg.qr(random(7, 5, seed=2))[0]
    for z in (start, columns):
        assert torch.autograd.gradcheck(lambda z: angles(z.T @ z), (z.requires_grad_(),))


@pytest.mark.parametrize("pair", _PAIRS)
def test_every_slope_is_that_of_its_function(pair: tuple) -> None:  # type: ignore[type-arg]
    function, slope = pair
    x = torch.logspace(-8, 2, 1000, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(slope(x.detach()), found, rtol=1e-9, atol=1e-9)
