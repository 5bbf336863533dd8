"""The change of a weight as two thin matrices is the dense one, at any strength."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import InvariantError
from patchkit.factors import Layout
from patchkit.factors.action import Factor, dense
from patchkit.factors.lowrank import Change, LowRank, look
from tests.laws.strategies import D_IN, D_OUT, additives, normal, rotations

THIN = st.lists(st.one_of(rotations(), additives()), min_size=0, max_size=4)
SEEDS = st.integers(0, 1000)


def weight(seed: int) -> torch.Tensor:
    return normal(torch.Generator().manual_seed(seed), D_OUT, D_IN)


def thin(
    w: torch.Tensor,
    factors: list[Factor],
    strength: float = 1.0,
    *,
    step: int = 100,
    layout: Layout = "linear",
) -> LowRank:
    change = Change(factors, (D_OUT, D_IN))
    stored = w if layout == "linear" else w.T.contiguous()
    rows = ((start, stored[start : start + step]) for start in range(0, len(stored), step))
    return change.at(look(change, rows, layout), strength)


def within(found: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor) -> bool:
    return float((found - wanted).norm()) <= 1e-11 * (1 + float(scale.norm()))


@pytest.mark.parametrize("layout", ["linear", "conv1d"])
@given(factors=THIN, seed=SEEDS, strength=st.floats(-2, 2), step=st.integers(1, 17))
def test_it_is_the_dense_change(
    layout: Layout, factors: list[Factor], seed: int, strength: float, step: int
) -> None:
    w = weight(seed)
    wanted = dense(w, [factor.power(strength) for factor in factors], "linear")
    low = thin(w, factors, strength, step=step, layout=layout)
    assert within(low.up @ low.down, wanted - w, wanted)


@given(factors=THIN, seed=SEEDS)
def test_the_shortest_form_is_the_same_change_at_its_rank(factors: list[Factor], seed: int) -> None:
    w = weight(seed)
    wanted = dense(w, factors, "linear")
    short = thin(w, factors).shortest()
    assert within(short.up @ short.down, wanted - w, wanted)
    assert short.rank <= min(D_OUT, D_IN)
    assert short.rank >= torch.linalg.matrix_rank(wanted - w, atol=1e-9 * float(wanted.norm()))


@given(factors=st.lists(rotations(), min_size=1, max_size=2), seed=SEEDS)
def test_factors_and_their_inverses_leave_nothing(factors: list[Factor], seed: int) -> None:
    back = [factor.inverse() for factor in reversed(factors)]
    w = weight(seed)
    assert thin(w, [*factors, *back]).shortest().norm() <= 1e-12 * float(w.norm())


@given(one=THIN, two=THIN, seed=SEEDS)
def test_distances_are_those_of_the_products(
    one: list[Factor], two: list[Factor], seed: int
) -> None:
    a, b = thin(weight(seed), one), thin(weight(seed), two)
    wanted = float((a.up @ a.down - b.up @ b.down).norm())
    scale = 1 + float((a.up @ a.down).norm() + (b.up @ b.down).norm())
    assert abs(a.distance(b) - wanted) <= 1e-11 * scale
    assert abs(a.norm() - float((a.up @ a.down).norm())) <= 1e-11 * scale


@given(factors=THIN, seed=SEEDS, more=st.integers(0, 5))
def test_padding_changes_nothing_but_the_rank(factors: list[Factor], seed: int, more: int) -> None:
    low = thin(weight(seed), factors)
    wide = low.padded(low.rank + more)
    assert wide.rank == low.rank + more
    assert within(wide.up @ wide.down, low.up @ low.down, low.up @ low.down)
    if low.rank:
        with pytest.raises(InvariantError, match="does not fit into rank"):
            low.padded(low.rank - 1)
