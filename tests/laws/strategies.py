"""Random factors for property tests: sizes and scales from hypothesis, values from a seed."""

from __future__ import annotations

import scipy.linalg
import torch
from hypothesis import strategies as st

from patchkit.factors import Side
from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.core import NORM_LIMIT
from patchkit.factors.kinds import Turn
from patchkit.factors.rotation import Rotation

D_OUT, D_IN = 10, 16


def dense_rotation(factor: Turn) -> torch.Tensor:
    """The definition, as a d × d matrix in fp64."""
    if isinstance(factor, RotationBlocks):
        return torch.from_numpy(scipy.linalg.expm(dense_generator(factor).numpy()))
    x, y = factor.x.double(), factor.y.double()
    half = x @ y.T
    return torch.from_numpy(scipy.linalg.expm((half - half.T).numpy()))


def dense_generator(factor: RotationBlocks) -> torch.Tensor:
    """The generator entry by entry, as the format says."""
    n, skew = factor.block_size, torch.zeros(factor.size, factor.size, dtype=torch.float64)
    for block, entries in enumerate(factor.s.double().tolist()):
        places = [(row, column) for row in range(n) for column in range(row)]
        for (row, column), value in zip(places, entries, strict=True):
            skew[block * n + row, block * n + column] = value
            skew[block * n + column, block * n + row] = -value
    return skew


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@st.composite
def rotations(
    draw: st.DrawFn,
    sides: tuple[Side, ...] = ("input", "output"),
    dtype: torch.dtype = torch.float64,
    most: float = 6.0,
) -> Rotation:
    """A rotation by at most `most` radians; its planes may coincide or vanish."""
    side = draw(st.sampled_from(sides))
    size = D_IN if side == "input" else D_OUT
    rank = draw(st.integers(1, size // 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    x, y = normal(generator, size, rank), normal(generator, size, rank)
    shape = draw(st.sampled_from(["free", "parallel", "repeated", "with a zero column"]))
    if shape == "parallel":
        y = x * 0.5
    elif shape == "repeated":
        x, y = x[:, :1].expand(-1, rank), y[:, :1].expand(-1, rank)
    elif shape == "with a zero column":
        x[:, 0] = 0.0
    wanted = draw(st.floats(1e-6, min(most, 0.98 * NORM_LIMIT)))
    x, y = x / x.norm().clamp_min(1.0), y / y.norm()
    norm = Rotation(side, x, y).norm()
    x = x * (wanted / norm if norm > 1e-6 else 1.0)
    return Rotation(side, x.to(dtype).contiguous(), y.to(dtype).contiguous())


@st.composite
def blocks(
    draw: st.DrawFn,
    sides: tuple[Side, ...] = ("input", "output"),
    dtype: torch.dtype = torch.float64,
    most: float = 6.0,
) -> RotationBlocks:
    """A rotation in blocks by at most `most` radians, of one block or many; some may not turn."""
    side = draw(st.sampled_from(sides))
    size = D_IN if side == "input" else D_OUT
    count = draw(st.sampled_from([b for b in range(1, size // 2 + 1) if size % b == 0]))
    n = size // count
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    s = normal(generator, count, n * (n - 1) // 2)
    if draw(st.booleans()):
        s[-1] = 0.0
    wanted = draw(st.floats(1e-6, min(most, 0.98 * NORM_LIMIT)))
    norm = RotationBlocks(side, s).norm()
    return RotationBlocks(side, (s * (wanted / norm if norm else 1.0)).to(dtype))


def turns(
    sides: tuple[Side, ...] = ("input", "output"),
    dtype: torch.dtype = torch.float64,
    most: float = 6.0,
) -> st.SearchStrategy[Turn]:
    """A rotation of either kind."""
    return st.one_of(rotations(sides, dtype, most), blocks(sides, dtype, most))


@st.composite
def additives(draw: st.DrawFn) -> Additive:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(1, 4))
    return Additive(normal(generator, D_OUT, rank), normal(generator, rank, D_IN))


@st.composite
def dense_additives(draw: st.DrawFn) -> AdditiveDense:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    return AdditiveDense(normal(generator, D_OUT, D_IN))


def factor_lists() -> st.SearchStrategy[list[Factor]]:
    """Ordered lists of up to four factors of any kind and side."""
    return st.lists(st.one_of(turns(), additives(), dense_additives()), min_size=0, max_size=4)
