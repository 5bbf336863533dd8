"""An ordered list of factors acts as the product of its dense definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.factors import Layout
from patchkit.factors.action import Action, Factor, dense
from patchkit.factors.additive import Additive, AdditiveDense
from tests.laws.strategies import D_IN, D_OUT, dense_rotation, factor_lists, normal

LAYOUTS: tuple[Layout, ...] = ("linear", "conv1d")


def by_definition(w: torch.Tensor, factors: list[Factor]) -> torch.Tensor:
    for factor in factors:
        if isinstance(factor, Additive):
            w = w + factor.l @ factor.f
        elif isinstance(factor, AdditiveDense):
            w = w + factor.d
        elif factor.side == "input":
            w = w @ dense_rotation(factor)
        else:
            w = dense_rotation(factor) @ w
    return w


def weight(seed: int) -> torch.Tensor:
    return normal(torch.Generator().manual_seed(seed), D_OUT, D_IN)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(factors=factor_lists(), seed=st.integers(0, 1000))
def test_apply_is_the_dense_product(layout: Layout, factors: list[Factor], seed: int) -> None:
    w = weight(seed)
    wanted = by_definition(w, factors)
    stored = w if layout == "linear" else w.T.contiguous()
    found = dense(stored, factors, layout)
    found = found if layout == "linear" else found.T
    assert float((found - wanted).abs().max()) <= 1e-12 * float(wanted.norm())


@pytest.mark.parametrize("layout", LAYOUTS)
@given(factors=factor_lists(), seed=st.integers(0, 1000), step=st.integers(1, 17))
def test_streaming_rows_is_the_same(
    layout: Layout, factors: list[Factor], seed: int, step: int
) -> None:
    w = weight(seed)
    stored = w if layout == "linear" else w.T.contiguous()
    whole = dense(stored, factors, layout)
    action = Action.of(factors, layout)
    starts = range(0, len(stored), step)
    if action.needs_prepass:
        for start in starts:
            action.prepass(start, stored[start : start + step])
    parts = [action.rows(start, stored[start : start + step]) for start in starts]
    assert float((torch.cat(parts) - whole).abs().max()) <= 1e-12 * float(whole.norm())


@given(factors=factor_lists())
def test_only_rotations_of_the_row_side_need_a_prepass(factors: list[Factor]) -> None:
    sides = {getattr(factor, "side", None) for factor in factors}
    assert Action.of(factors, "linear").needs_prepass == ("output" in sides)
    assert Action.of(factors, "conv1d").needs_prepass == ("input" in sides)


@given(factors=factor_lists(), seed=st.integers(0, 1000))
def test_inverses_in_reverse_order_give_the_weight_back(factors: list[Factor], seed: int) -> None:
    w = weight(seed)
    there = dense(w, factors, "linear")
    back = dense(there, [factor.inverse() for factor in reversed(factors)], "linear")
    scale = float(w.norm() + there.norm())
    assert float((back - w).abs().max()) <= 1e-12 * scale
