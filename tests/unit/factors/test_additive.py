from __future__ import annotations

import pytest
import torch

from patchkit.errors import InvariantError
from patchkit.factors.action import dense
from patchkit.factors.additive import Additive, AdditiveDense


def test_it_adds_its_product_and_takes_it_away_again() -> None:
    factor = Additive(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0, 1.0]]))
    w = torch.ones(2, 3, dtype=torch.float64)
    there = dense(w, [factor], "linear")
    assert there.tolist() == [[4.0, 1.0, 2.0], [7.0, 1.0, 3.0]]
    assert torch.equal(dense(there, [factor.inverse()], "linear"), w)
    assert torch.equal(dense(w, [factor.power(0.5)] * 2, "linear"), there)


def test_shapes_must_fit() -> None:
    with pytest.raises(InvariantError, match="do not fit"):
        Additive(torch.zeros(3, 2), torch.zeros(3, 2))


def test_a_dense_sum_is_added_and_taken_away_again() -> None:
    factor = AdditiveDense(torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 4.0]]))
    w = torch.ones(2, 3, dtype=torch.float64)
    there = dense(w, [factor], "linear")
    assert there.tolist() == [[2.0, 3.0, 1.0], [1.0, 0.0, 5.0]]
    assert torch.equal(dense(there, [factor.inverse()], "linear"), w)
    assert torch.equal(dense(w, [factor.power(0.5)] * 2, "linear"), there)
    assert torch.equal(dense(w.T, [factor], "conv1d"), there.T)
    assert factor.rank == 2


def test_a_dense_sum_is_a_matrix() -> None:
    with pytest.raises(InvariantError, match=r"not of shape \(3,\)"):
        AdditiveDense(torch.zeros(3))
