"""What a long sequence of edits holds does not grow with its length."""

import pytest
import torch

from patchkit.editing.state import SiteState
from patchkit.editing.statistics import Statistics
from patchkit.factors.action import dense
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.tensors.layout import Site

D_OUT, D_IN = 6, 10


def factor(kind: str, seed: int) -> Factor:
    draw = torch.Generator().manual_seed(seed)
    if kind == "dense":
        return AdditiveDense(torch.randn(D_OUT, D_IN, generator=draw, dtype=torch.float64))
    if kind == "additive":
        left = torch.randn(D_OUT, 3, generator=draw, dtype=torch.float64)
        return Additive(left, torch.randn(3, D_IN, generator=draw, dtype=torch.float64))
    size = D_IN if kind == "input" else D_OUT
    x, y = torch.randn(2, size, 2, generator=draw, dtype=torch.float64) / size
    return Rotation("input" if kind == "input" else "output", x, y)


def state(base: torch.Tensor) -> SiteState:
    d_out, d_in = base.shape
    site = Site(0, "m", "m.weight", "linear", d_in, d_out, False)
    statistics = Statistics(torch.eye(d_in), 1)
    empty = base.new_zeros(0, 1, d_in), base.new_zeros(0, 1, d_out)
    return SiteState(site, base, base, statistics, *empty)


@pytest.mark.parametrize("kind", ["input", "output", "additive", "dense"])
def test_many_batches_act_the_same_and_take_bounded_room(kind: str) -> None:
    weight = torch.randn(D_OUT, D_IN, generator=torch.manual_seed(9), dtype=torch.float64)
    held = state(weight)
    every: list[Factor] = []
    most = {"input": D_IN, "output": D_OUT}.get(kind, 2 * D_OUT)  # twice what one needs
    for seed in range(30):
        every.append(factor(kind, seed))
        held = held.changed(every[-1]).bounded()
        assert sum(one.rank for one in held.factors) <= most
    torch.testing.assert_close(
        dense(weight, held.factors, "linear"), dense(weight, every, "linear"), rtol=1e-9, atol=1e-9
    )


def test_factors_that_fit_are_left_as_they_are() -> None:
    few = (factor("input", 0), factor("output", 1), factor("additive", 2))
    assert state(torch.zeros(D_OUT, D_IN)).changed(*few).bounded().factors == few


def test_a_state_on_earlier_patches_changes_alike_with_fewer_planes() -> None:
    base = torch.randn(2, D_IN, generator=torch.manual_seed(3))
    every = [factor("input", seed) for seed in range(5)]
    many = state(base).carrying(every[:2]).changed(*every[2:])
    fewer = many.bounded()
    assert [one.rank for one in fewer.factors] == [2]
    assert fewer.carried == many.carried
    torch.testing.assert_close(fewer.weight, many.weight, rtol=0, atol=1e-6)
