"""Rotations in blocks by example: packing, limits, generators of given matrices, products."""

from __future__ import annotations

import math
import operator
from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import InvariantError
from patchkit.factors.blocks import (
    RotationBlocks,
    blocks_from_matrices,
    merge_blocks,
    pack,
    proper,
    unpack,
)
from tests.laws.strategies import blocks, dense_rotation, normal


def random_orthogonal(seed: int, count: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(normal(generator, count, n, n))[0]


def test_triangles_are_stored_row_after_row() -> None:
    lower = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [2, 3, 0, 0], [4, 5, 6, 0]])
    packed = pack((lower - lower.T)[None])
    assert packed.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert torch.equal(unpack(packed)[0], lower - lower.T)


def test_sizes_follow_from_the_shape() -> None:
    factor = RotationBlocks("output", torch.zeros(3, 10))
    assert (factor.blocks, factor.block_size, factor.size, factor.rank) == (3, 5, 15, 6)
    assert factor.angles().shape == (6,)


@pytest.mark.parametrize("shape", [(1, 2), (1, 0), (0, 3), (3,), (1, 1, 1), (2, 4)])
def test_rows_must_be_triangles(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvariantError, match="not the triangles of square blocks"):
        RotationBlocks("input", torch.zeros(shape))


def test_a_block_turns_only_its_own_directions() -> None:
    factor = RotationBlocks("input", torch.tensor([[math.pi / 2], [0.0]], dtype=torch.float64))
    turned, still = factor.matrices()
    wanted = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(turned, wanted, atol=1e-15)
    assert torch.equal(still, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("angle", [64.1, 1e30])
def test_too_large_a_generator_is_refused_before_the_exponential(
    angle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the exponential was computed")

    monkeypatch.setattr("patchkit.factors.blocks.skew_exponential", fail)
    factor = RotationBlocks("input", torch.tensor([[0.1], [angle]], dtype=torch.float64))
    for use in (RotationBlocks.matrices, RotationBlocks.norm, RotationBlocks.angles,
                RotationBlocks.length, RotationBlocks.check):  # fmt: skip
        with pytest.raises(InvariantError, match="beyond the limit of 64"):
            use(factor)


def test_many_angles_below_the_limit_are_allowed() -> None:
    planes = 460  # ‖S‖_F / √2 is above the limit although no angle is
    s = torch.zeros(2 * planes, 2 * planes, dtype=torch.float64)
    even = torch.arange(0, 2 * planes, 2)
    s[even + 1, even] = 3.0
    factor = RotationBlocks("input", pack((s - s.T)[None]))
    assert factor.length() / math.sqrt(2) > 64
    factor.check()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    factor = RotationBlocks("input", torch.tensor([[0.1, value, 0.2]]))
    for use in (RotationBlocks.matrices, RotationBlocks.norm, RotationBlocks.angles):
        with pytest.raises(InvariantError, match="not finite"):
            use(factor)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 3), n=st.integers(2, 7))
def test_a_given_rotation_has_a_generator(seed: int, count: int, n: int) -> None:
    q = torch.stack([proper(block) for block in random_orthogonal(seed, count, n)])
    factor = blocks_from_matrices(q, "output", dtype=torch.float64)
    assert torch.allclose(factor.matrices(), q, atol=1e-13)
    assert factor.norm() <= math.pi + 1e-12


def test_a_reflection_loses_the_sign_of_its_last_column() -> None:
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert torch.equal(proper(mirror), torch.eye(3, dtype=torch.float64))
    factor = blocks_from_matrices(mirror[None], "input")
    assert torch.equal(factor.s, torch.zeros(1, 3))


def test_half_turns_have_a_generator() -> None:
    q = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))[None]
    factor = blocks_from_matrices(q, "input", dtype=torch.float64)
    assert factor.angles().tolist() == pytest.approx([math.pi])
    assert torch.allclose(factor.matrices(), q, atol=1e-14)


def test_what_is_not_orthogonal_has_no_generator() -> None:
    with pytest.raises(InvariantError, match=r"orthogonal only to 0\.21"):
        blocks_from_matrices(1.1 * torch.eye(3)[None], "input")
    with pytest.raises(InvariantError, match="orthogonal only to nan"):
        blocks_from_matrices(torch.full((1, 2, 2), math.nan), "input")


@given(st.data())
def test_merging_is_acting_one_after_another(data: st.DataObject) -> None:
    first = data.draw(blocks())
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    others = [
        RotationBlocks(first.side, normal(generator, *first.s.shape) / 4)
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    matrices = [dense_rotation(factor) for factor in (first, *others)]
    ordered = matrices if first.side == "input" else matrices[::-1]
    merged = merge_blocks([first, *others], dtype=torch.float64)
    assert (merged.side, merged.blocks) == (first.side, first.blocks)
    wanted = reduce(operator.matmul, ordered)
    assert float((dense_rotation(merged) - wanted).abs().max()) < 1e-11


def test_only_equal_layouts_are_merged() -> None:
    one, two = (
        RotationBlocks("input", torch.zeros(2, 6)),
        RotationBlocks("input", torch.zeros(4, 1)),
    )
    other = RotationBlocks("output", torch.zeros(2, 6))
    for factors in ([], [one, two], [one, other]):
        with pytest.raises(InvariantError, match="only rotations in equal blocks of one side"):
            merge_blocks(factors)


def test_power_works_in_double_precision() -> None:
    factor = RotationBlocks("input", torch.rand(2, 3))
    assert factor.power(0.1).s.dtype == torch.float64
    assert factor.inverse().s.dtype == torch.float32
