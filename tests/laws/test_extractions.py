"""Extracting what a patch did finds its rotation again, wherever it acts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patchkit.extract import extract
from patchkit.factors import Layout, Side
from patchkit.factors.action import dense
from patchkit.factors.rotation import Rotation
from patchkit.tensors.torch_dtypes import spacing
from tests.unit.extract.folders import NAMES, two_folders

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    side=st.sampled_from(["input", "output"]),
    layout=st.sampled_from(["linear", "conv1d"]),
    share=st.floats(0.01, 1.0),
    angle=st.floats(0.2, 2.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_rotation_is_recovered_where_it_acts(
    dtype: torch.dtype,
    shape: tuple[int, int],
    side: Side,
    layout: Layout,
    share: float,
    angle: float,
    seed: int,
) -> None:
    """‖W R̂ − W R‖ is a few times what rounding W R left, and nothing where it left nothing.

    The residual of the nearest rotation is at most that of R, the rounding; leaving out directions
    below the edge of the rounding, and the ridge, cost at most four times that each.
    """
    d_out, d_in = shape
    size = d_in if side == "input" else d_out
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(d_out, d_in, generator=generator, dtype=torch.float64)
    weight *= torch.rand(d_out, 1, generator=generator, dtype=torch.float64) + 0.1
    weight = weight.to(dtype).double()
    rank = max(1, int(share * size / 2))
    x, y = torch.randn(2, size, rank, generator=generator).double() / size**0.5
    x = x * (angle / Rotation(side, x, y).norm())
    turned = dense(weight, [Rotation(side, x, y)], "linear")
    stored = turned.to(dtype).double()
    expected = spacing(stored, dtype).square().sum() / 12
    noise = float(torch.maximum((stored - turned).square().sum(), expected)) ** 0.5
    change = float((turned - weight).norm())
    assume(change > 10 * noise)
    with TemporaryDirectory() as place:
        base, edited = two_folders(Path(place), weight.to(dtype), stored.to(dtype), layout)
        made = extract(base, edited, tensors=[NAMES[layout]], side=side, energy=1.0)
    (factor,) = made.patch.factors[NAMES[layout]]
    found = dense(weight, [factor], "linear")
    assert float((found - turned).norm()) <= 6 * noise + 1e-6 * change
    (result,) = made.report.tensors
    assert result.explained >= 1 - (6 * noise / change + 1e-6) ** 2
