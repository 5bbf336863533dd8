"""The least rotation with the same action on one matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchkit.factors import Side
from patchkit.factors.action import dense
from patchkit.factors.algebra import merge
from patchkit.factors.minimal import minimal, planes_needed
from patchkit.factors.rotation import Rotation

SHAPES = [(3, 12), (3, 5), (4, 7), (6, 6), (9, 4), (12, 3), (1, 2), (1, 1)]


def drawn(
    seed: int, d_out: int, d_in: int, side: Side, count: int
) -> tuple[Tensor, list[Rotation]]:
    draw = torch.Generator().manual_seed(seed)
    size = d_in if side == "input" else d_out
    columns = torch.randn(count, 2, size, 2, generator=draw, dtype=torch.float64) / math.sqrt(size)
    weight = torch.randn(d_out, d_in, generator=draw, dtype=torch.float64)
    return weight, [Rotation(side, x, y) for x, y in columns]


def distance(rotation: Rotation) -> float:
    """Return ‖R − I‖_F."""
    return float(torch.linalg.matrix_norm(rotation.core().turn))


@given(
    st.integers(0, 10_000),
    st.sampled_from(SHAPES),
    st.sampled_from(["input", "output"]),
    st.integers(1, 4),
)
def test_it_changes_the_matrix_alike_with_the_planes_it_needs(
    seed: int, shape: tuple[int, int], side: Side, count: int
) -> None:
    weight, rotations = drawn(seed, *shape, side, count)
    least = minimal(rotations, weight)
    torch.testing.assert_close(
        dense(weight, [least], "linear"), dense(weight, rotations, "linear"), rtol=0, atol=1e-12
    )
    assert least.rank <= planes_needed(*shape, least.size)


@pytest.mark.parametrize("side", ["input", "output"])
def test_no_rotation_with_that_action_is_nearer_to_the_identity(side: Side) -> None:
    shape = (3, 12) if side == "input" else (12, 3)
    weight, rotations = drawn(0, *shape, side, 3)
    least = minimal(rotations, weight)
    assert distance(least) < distance(merge(rotations, dtype=torch.float64))
    across = weight.T if side == "input" else weight
    unread = torch.linalg.qr(across, mode="complete")[0][:, 3:]  # (12, 9)
    for seed in range(5):
        x, y = torch.randn(
            2, 9, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        idle = Rotation(side, unread @ x / 10, unread @ y / 10)
        other = merge([idle, least], dtype=torch.float64)
        torch.testing.assert_close(
            dense(weight, [other], "linear"), dense(weight, [least], "linear")
        )
        assert distance(least) < distance(other)


def test_a_direction_turned_back_on_itself_takes_a_plane() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    half_turn = Rotation("input", math.pi * eye[:, :1], eye[:, 1:2])
    least = minimal([half_turn], eye[:1])
    torch.testing.assert_close(dense(eye[:1], [least], "linear"), -eye[:1])
    assert least.angles().tolist() == pytest.approx([math.pi])


def test_rotations_of_what_the_matrix_does_not_read_vanish() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    idle = Rotation("input", 0.5 * eye[:, 2:3], eye[:, 3:4])
    assert minimal([idle, idle], eye[:2]).rank == 0


def test_a_matrix_of_less_than_full_rank_is_changed_alike() -> None:
    weight, rotations = drawn(1, 4, 12, "input", 3)
    weight[1:] = 0.0
    least = minimal(rotations, weight)
    torch.testing.assert_close(dense(weight, [least], "linear"), dense(weight, rotations, "linear"))
