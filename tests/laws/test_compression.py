"""Compression stays within the error it states, and says so for every list."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.factors.action import dense
from patchkit.factors.additive import Additive
from patchkit.factors.algebra import merge
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.compression import compress
from patchkit.factors.distance import spectral_distance
from patchkit.factors.kinds import Factor, Turn
from patchkit.factors.rotation import Rotation
from tests.laws.strategies import D_IN, D_OUT, dense_rotation, factor_lists, normal, rotations

TOLERANCES = st.sampled_from([1e-9, 1e-6, 1e-2, 0.3])


def side(factors: Sequence[Factor], name: str) -> list[Turn]:
    return [factor for factor in factors if isinstance(factor, Turn) and factor.side == name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25)
@given(data=st.data(), tolerance=TOLERANCES)
def test_rotations_stay_within_the_bound(
    dtype: torch.dtype, data: st.DataObject, tolerance: float
) -> None:
    turns = data.draw(st.lists(rotations(dtype=dtype), min_size=1, max_size=5))
    found = compress(turns, tolerance=tolerance)
    kept: list[str] = [factor.side for factor in found.factors if isinstance(factor, Turn)]
    assert kept == sorted(set(kept))
    for name in ("input", "output"):
        gap = spectral_distance(side(turns, name), side(found.factors, name))
        assert gap <= found.bound + 1e-13


@settings(max_examples=25)
@given(factor_lists(), st.integers(0, 1000))
def test_any_list_acts_as_before(factors: list[Factor], seed: int) -> None:
    w = normal(torch.Generator().manual_seed(seed), D_OUT, D_IN)
    found = compress(factors, tolerance=1e-9)
    before, after = dense(w, factors, "linear"), dense(w, found.factors, "linear")
    scale = float(w.norm()) + sum(
        float((factor.l @ factor.f).norm()) for factor in factors if isinstance(factor, Additive)
    )
    assert float((before - after).norm()) <= (2 * found.bound + 1e-12) * scale


@settings(max_examples=25)
@given(st.lists(rotations(sides=("input",), dtype=torch.float32), min_size=2, max_size=4))
def test_compressing_again_changes_nothing(turns: list[Rotation]) -> None:
    once = compress(turns, tolerance=1e-6)
    again = compress(once.factors, tolerance=1e-7)
    assert [id(factor) for factor in again.factors] == [id(factor) for factor in once.factors]
    assert again.bound == 0.0


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["input", "output"]))
def test_blocks_of_one_size_become_one_factor(seed: int, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    turns = [RotationBlocks("input", normal(generator, 4, 6).float()) for _ in range(3)]
    found = compress(turns)
    assert [factor.kind for factor in found.factors] == ["rotation-blocks"]
    assert spectral_distance(turns, side(found.factors, "input")) <= found.bound


def test_a_full_rotation_is_stored_as_one_block_because_that_is_smaller() -> None:
    generator = torch.Generator().manual_seed(0)
    turns = [
        Rotation("input", normal(generator, 64, 1).float() / 8, normal(generator, 64, 1).float())
        for _ in range(100)
    ]
    found = compress(turns)
    assert [factor.kind for factor in found.factors] == ["rotation-blocks"]
    assert spectral_distance(turns, side(found.factors, "input")) <= found.bound < 1e-5


def test_planes_below_the_angle_are_left_out() -> None:
    eye = torch.eye(16)
    small = Rotation("input", 1e-3 * eye[:, :1], eye[:, 1:2])
    large = Rotation("input", eye[:, 2:3], eye[:, 3:4])
    found = compress([small, large], tolerance=1e-2)
    assert [factor.rank for factor in found.factors] == [1]
    assert spectral_distance([small, large], side(found.factors, "input")) <= found.bound <= 1.01e-2
    nothing = compress([small, small.inverse()], tolerance=1e-6)
    assert nothing.factors == ()


def test_additive_factors_stay_where_they_are_between_rotations() -> None:
    generator = torch.Generator().manual_seed(0)
    turn = Rotation("input", normal(generator, D_IN, 1), normal(generator, D_IN, 1))
    added = Additive(normal(generator, D_OUT, 1), normal(generator, 1, D_IN))
    found = compress([turn, turn, added, turn, turn])
    assert [factor.kind for factor in found.factors] == ["rotation", "additive", "rotation"]


@settings(max_examples=25)
@given(st.lists(rotations(sides=("output",)), min_size=1, max_size=12))
def test_many_factors_merge_to_the_dense_product(turns: list[Rotation]) -> None:
    total = torch.eye(D_OUT, dtype=torch.float64)
    for turn in turns:
        total = dense_rotation(turn) @ total
    one = dense_rotation(merge(turns, dtype=torch.float64))
    assert float((one - total).abs().max()) <= 1e-11
