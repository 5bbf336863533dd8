"""Distances in the small joint basis are those of the dense definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.errors import InvariantError
from patchkit.factors import Side
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.distance import (
    chordal_distance,
    commutator_norm,
    geodesic_distance,
    principal_angles,
    spectral_distance,
)
from patchkit.factors.rotation import Rotation
from tests.laws.strategies import D_IN, dense_rotation, normal, rotations

Pair = tuple[list[Rotation], list[Rotation]]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Two lists of rotations of one side, possibly empty."""
    side = draw(st.sampled_from(("input", "output")))
    lists = st.lists(rotations(sides=(side,)), max_size=3)
    return draw(lists), draw(lists)


def dense_product(turns: list[Rotation], size: int = D_IN) -> torch.Tensor:
    total = torch.eye(turns[0].size if turns else size, dtype=torch.float64)
    for turn in turns:
        r = dense_rotation(turn)
        total = total @ r if turn.side == "input" else r @ total
    return total


def dense_pair(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    size = next((turn.size for turn in (*pair[0], *pair[1])), D_IN)
    return dense_product(pair[0], size), dense_product(pair[1], size)


@settings(max_examples=25)
@given(pairs())
def test_chordal_and_spectral_are_norms_of_the_difference(pair: Pair) -> None:
    gap = np.subtract(*(r.numpy() for r in dense_pair(pair)))
    assert chordal_distance(*pair) == pytest.approx(np.linalg.norm(gap), abs=1e-11)
    assert spectral_distance(*pair) == pytest.approx(np.linalg.norm(gap, 2), abs=1e-11)


@settings(max_examples=25)
@given(pairs())
def test_geodesic_is_the_length_of_the_logarithm(pair: Pair) -> None:
    a, b = dense_pair(pair)
    angles = np.angle(np.linalg.eigvals((a.T @ b).numpy()))
    assert geodesic_distance(*pair) == pytest.approx(np.linalg.norm(angles), abs=1e-9)


@settings(max_examples=25)
@given(rotations(most=3.0))
def test_geodesic_distance_from_the_identity_is_the_length(rotation: Rotation) -> None:
    assert geodesic_distance([rotation], []) == pytest.approx(rotation.length(), rel=1e-9)


@settings(max_examples=25)
@given(pairs())
def test_commutator_is_that_of_the_matrices(pair: Pair) -> None:
    a, b = dense_pair(pair)
    wanted = np.linalg.norm((a @ b - b @ a).numpy(), 2)
    assert commutator_norm(*pair) == pytest.approx(wanted, abs=1e-11)
    assert commutator_norm(pair[0], pair[0]) <= 1e-11


@settings(max_examples=25)
@given(
    rotations(sides=("input",), most=2.0), rotations(sides=("input",), most=2.0),
    rotations(sides=("input",), most=2.0),
)  # fmt: skip
def test_distances_are_metrics_that_no_rotation_changes(
    a: Rotation, b: Rotation, c: Rotation
) -> None:
    for distance in (geodesic_distance, chordal_distance, spectral_distance):
        assert distance([a], [a]) <= 1e-10
        assert distance([a], [b]) == pytest.approx(distance([b], [a]), abs=1e-10)
        assert distance([a], [c]) <= distance([a], [b]) + distance([b], [c]) + 1e-10
        assert distance([a, c], [b, c]) == pytest.approx(distance([a], [b]), abs=1e-10)
        assert distance([c, a], [c, b]) == pytest.approx(distance([a], [b]), abs=1e-10)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3))
def test_principal_angles_are_those_of_the_moved_spaces(seed: int, one: int, two: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    turns = [
        Rotation("input", normal(generator, D_IN, rank) / 4, normal(generator, D_IN, rank))
        for rank in (one, two)
    ]
    spans = [torch.cat([turn.x, turn.y], dim=1).numpy() for turn in turns]
    wanted = np.sort(scipy.linalg.subspace_angles(*spans))[::-1]
    assert principal_angles([turns[0]], [turns[1]]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("side", ["input", "output"])
def test_rotations_of_orthogonal_planes_commute_and_stand_at_a_right_angle(side: Side) -> None:
    eye = torch.eye(6, dtype=torch.float64)
    a = Rotation(side, 0.3 * eye[:, :1], eye[:, 1:2])
    b = Rotation(side, 0.4 * eye[:, 2:3], eye[:, 3:4])
    assert commutator_norm([a], [b]) <= 1e-15
    assert principal_angles([a], [b]) == pytest.approx((math.pi / 2, math.pi / 2))
    assert principal_angles([a], [a]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert principal_angles([a], []) == ()
    assert geodesic_distance([a], [b]) == pytest.approx(math.sqrt(2 * (0.3**2 + 0.4**2)))
    assert spectral_distance([a], []) == pytest.approx(2 * math.sin(0.15))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), rotations(sides=("input",)))
def test_rotations_in_blocks_are_compared_with_others(seed: int, low: Rotation) -> None:
    s = normal(torch.Generator().manual_seed(seed), 4, 6)
    blocks = RotationBlocks("input", s)
    dense = torch.block_diag(*blocks.matrices())
    gap = np.linalg.norm((dense - dense_rotation(low)).numpy(), 2)
    assert spectral_distance([blocks], [low]) == pytest.approx(gap, abs=1e-11)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["input", "output"]))
def test_rotations_in_equal_blocks_are_compared_block_by_block(seed: int, side: Side) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = ([RotationBlocks(side, normal(generator, 4, 6)) for _ in range(2)] for _ in "ab")
    dense = []
    for one, two in (a, b):
        first, second = torch.block_diag(*one.matrices()), torch.block_diag(*two.matrices())
        dense.append((first @ second if side == "input" else second @ first).numpy())
    gap = dense[0] - dense[1]
    angles = np.angle(np.linalg.eigvals(dense[0].T @ dense[1]))
    swapped = dense[0] @ dense[1] - dense[1] @ dense[0]
    assert chordal_distance(a, b) == pytest.approx(np.linalg.norm(gap), abs=1e-11)
    assert spectral_distance(a, b) == pytest.approx(np.linalg.norm(gap, 2), abs=1e-11)
    assert geodesic_distance(a, b) == pytest.approx(np.linalg.norm(angles), abs=1e-9)
    assert commutator_norm(a, b) == pytest.approx(np.linalg.norm(swapped, 2), abs=1e-11)


def test_directions_without_a_partner_in_their_block_are_at_a_right_angle() -> None:
    a = RotationBlocks("input", torch.tensor([[1.0], [0.0]]))
    b = RotationBlocks("input", torch.tensor([[0.0], [1.0]]))
    assert principal_angles([a], [b]) == pytest.approx((math.pi / 2, math.pi / 2))
    assert principal_angles([a], [a]) == pytest.approx((0.0, 0.0))


def test_lists_that_cannot_be_compared_are_refused() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    a = Rotation("input", eye[:, :1], eye[:, 1:2])
    b = Rotation("output", eye[:, :1], eye[:, 1:2])
    with pytest.raises(InvariantError, match="input 6 and output 6"):
        geodesic_distance([a], [b])
    low = Rotation("input", torch.zeros(8192, 1), torch.zeros(8192, 1))
    with pytest.raises(InvariantError, match="8192"):
        spectral_distance([RotationBlocks("input", torch.zeros(4096, 1))], [low])


def test_nothing_is_at_no_distance_from_nothing() -> None:
    assert (geodesic_distance([], []), chordal_distance([], [])) == (0.0, 0.0)
    assert (spectral_distance([], []), commutator_norm([], [])) == (0.0, 0.0)
    assert principal_angles([], []) == ()
