"""Means of rotations: what they keep, and where they stand still."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.errors import InvariantError, SolveError
from patchkit.factors.core import logarithm
from patchkit.factors.distance import geodesic_distance
from patchkit.factors.kinds import Turn
from patchkit.factors.mean import Mean, karcher_mean, lie_mean
from patchkit.factors.rotation import Rotation, rotation_from_core
from tests.laws.strategies import D_IN, rotations

Method = Callable[[Sequence[Sequence[Turn]]], Mean]


def turn_of(mean: Mean) -> list[Rotation]:
    return [rotation_from_core(mean.basis, logarithm(mean.q), "input", dtype=torch.float64)]


SMALL = st.lists(rotations(sides=("input",), most=0.7), min_size=2, max_size=4)


@pytest.mark.parametrize("method", [lie_mean, karcher_mean])
@settings(max_examples=20)
@given(turns=SMALL, shift=st.integers(1, 3))
def test_a_mean_is_a_rotation_that_no_order_changes(
    method: Method, turns: list[Rotation], shift: int
) -> None:
    products = [[turn] for turn in turns]
    try:
        mean = method(products)
    except SolveError:
        assert method is lie_mean  # generators that cancel have no direction
        return
    eye = torch.eye(len(mean.q), dtype=torch.float64)
    assert float((mean.q.T @ mean.q - eye).abs().max()) <= 1e-12
    turned = products[shift % len(products) :] + products[: shift % len(products)]
    assert geodesic_distance(turn_of(mean), turn_of(method(turned))) <= 1e-7


@pytest.mark.parametrize("method", [lie_mean, karcher_mean])
@settings(max_examples=20)
@given(turn=rotations(sides=("input",), most=3.0), count=st.integers(1, 4))
def test_the_mean_of_equals_is_each_of_them(method: Method, turn: Rotation, count: int) -> None:
    assert geodesic_distance(turn_of(method([[turn]] * count)), [turn]) <= 1e-7


@settings(max_examples=20)
@given(SMALL)
def test_the_corrected_mean_has_the_mean_length(turns: list[Rotation]) -> None:
    try:
        mean = lie_mean([[turn] for turn in turns])
    except SolveError:
        return
    wanted = sum(turn.length() for turn in turns) / len(turns)
    length = float(torch.linalg.matrix_norm(logarithm(mean.q)))
    assert length == pytest.approx(wanted, rel=1e-9)


@settings(max_examples=20)
@given(SMALL)
def test_the_karcher_mean_is_where_the_sum_of_squares_is_least(turns: list[Rotation]) -> None:
    mean = karcher_mean([[turn] for turn in turns])
    assert mean.residual <= 1e-10
    middle = turn_of(mean)

    def cost(at: list[Rotation]) -> float:
        return sum(geodesic_distance(at, [turn]) ** 2 for turn in turns)

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(D_IN, 1, generator=generator, dtype=torch.float64) for _ in "xy")
    nudge = Rotation("input", 1e-3 * x, y)
    assert cost(middle) <= cost([*middle, nudge]) + 1e-12


@settings(max_examples=20)
@given(rotations(sides=("input",), most=1.5), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_on_one_geodesic_the_karcher_mean_is_the_middle(
    turn: Rotation, alpha: float, beta: float
) -> None:
    mean = karcher_mean([[turn.power(alpha)], [turn.power(beta)]])
    assert geodesic_distance(turn_of(mean), [turn.power((alpha + beta) / 2)]) <= 1e-7


def test_an_input_that_does_nothing_counts() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    turn = Rotation("input", 0.8 * eye[:, :1], eye[:, 1:2])
    for method in (lie_mean, karcher_mean):
        assert geodesic_distance(turn_of(method([[turn], []])), [turn.power(0.5)]) <= 1e-9


def test_what_has_no_mean_is_refused() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    turn = Rotation("input", 0.8 * eye[:, :1], eye[:, 1:2])
    with pytest.raises(SolveError, match="cancel"):
        lie_mean([[turn], [turn.inverse()]])
    with pytest.raises(InvariantError, match="no rotation"):
        karcher_mean([[], []])
    with pytest.raises(InvariantError, match="input 6 and output 6"):
        lie_mean([[turn], [Rotation("output", turn.x, turn.y)]])


def test_a_mean_that_does_not_settle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    eye = torch.eye(6, dtype=torch.float64)
    turns = [[Rotation("input", math.pi * eye[:, :1], eye[:, i : i + 1])] for i in (1, 2)]
    middle = turn_of(karcher_mean(turns))
    near, far = (geodesic_distance(middle, turn) for turn in turns)
    assert near == pytest.approx(far, abs=1e-6)
    monkeypatch.setattr("patchkit.factors.mean.STEPS", 2)
    with pytest.raises(SolveError, match="not settled after 2 steps"):
        karcher_mean(turns)
