"""Taking off what was applied is the identity in bytes, whatever was applied to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.apply import apply_patches
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.revert import revert
from tests.unit.tensors.folders import write_folder, write_patch

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@dataclass(frozen=True)
class Case:
    """A matrix of some shape and the factors of each patch of a stack."""

    weight: torch.Tensor
    stack: Sequence[Sequence[Factor]]
    layout: str


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype) -> Case:
    d_out, d_in = draw(st.integers(4, 24)), draw(st.integers(4, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-3, 0.05, 1.0, 30.0]))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def factor(kind: str) -> Factor:
        side = draw(st.sampled_from(["input", "output"]))
        size = d_in if side == "input" else d_out
        angle = draw(st.sampled_from([1e-4, 0.03, 0.3, 1.0]))
        if kind == "rotation":
            rank = draw(st.integers(1, size // 2))
            x, y = normal(2, size, rank) / size**0.5
            return Rotation(side, angle * x, y)
        if kind == "rotation-blocks":
            return RotationBlocks(side, angle * normal(1, size * (size - 1) // 2) / size**0.5)
        if kind == "additive":
            return Additive(scale * normal(d_out, 2) / 4, normal(2, d_in) / 4)
        return AdditiveDense(scale * normal(d_out, d_in) / 10)

    kinds = st.sampled_from(["rotation", "rotation-blocks", "additive", "additive-dense"])
    layout = draw(st.sampled_from(["linear", "conv1d"]))
    stack = draw(st.lists(st.lists(kinds, min_size=1, max_size=3), min_size=1, max_size=3))
    weight = scale * normal(d_out, d_in) * normal(d_out, 1).exp()
    weight[0, 0] = 0.0
    stored = weight if layout == "linear" else weight.T
    factors = [[factor(kind) for kind in ordered] for ordered in stack]
    return Case(stored.to(dtype).contiguous(), factors, layout)


@pytest.mark.parametrize("source", ["base", "undo"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_revert_after_apply_is_the_identity(
    dtype: torch.dtype, source: str, data: st.DataObject
) -> None:
    case = data.draw(cases(dtype))
    with TemporaryDirectory() as name:
        place = Path(name)
        tensors = {"w.weight": case.weight, "other": torch.ones(3)}
        base = write_folder(place / "base", tensors)
        files = [place / f"{i}.patch.safetensors" for i in range(len(case.stack))]
        for file, factors in zip(files, case.stack, strict=True):
            write_patch(file, base, {"w.weight": factors}, layout=case.layout)
        before = {path.name: path.read_bytes() for path in base.iterdir()}
        apply_patches(base, files, place / "out", undo=source == "undo")
        if source == "undo":
            base.rename(place / "lost")
        report = revert(place / "out")
        assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == before
        assert (report.source, report.bit_exact) == (source, True)


@pytest.mark.parametrize("source", ["base", "undo"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=8)
@given(data=st.data())
def test_taking_one_patch_off_is_never_having_applied_it(
    dtype: torch.dtype, source: str, data: st.DataObject
) -> None:
    """Whichever of a stack it is, in bytes: weights of the others are rounded once."""
    case = data.draw(cases(dtype).filter(lambda case: len(case.stack) > 1))
    gone = data.draw(st.integers(0, len(case.stack) - 1))
    with TemporaryDirectory() as name:
        place = Path(name)
        base = write_folder(place / "base", {"w.weight": case.weight, "other": torch.ones(3)})
        files = [place / f"{i}.patch.safetensors" for i in range(len(case.stack))]
        for file, factors in zip(files, case.stack, strict=True):
            write_patch(file, base, {"w.weight": factors}, layout=case.layout)
        apply_patches(base, files, place / "out", undo=True)
        apply_patches(base, files[:gone] + files[gone + 1 :], place / "without")
        if source == "undo":
            base.rename(place / "lost")
        report = revert(place / "out", only=str(gone))
        assert (report.source, len(report.remaining)) == (source, len(files) - 1)
        found, wanted = (place / each / "model.safetensors" for each in ("out", "without"))
        assert found.read_bytes() == wanted.read_bytes()
