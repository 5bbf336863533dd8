"""Whether a patch is applied in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.compose import Part, compose
from patchkit.diff import diff_applied
from patchkit.errors import BaseMismatch, CheckpointError
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from patchkit.tensors.checkpoint import Checkpoint
from tests.unit.tensors.folders import (
    D_IN,
    LINEAR,
    rotation,
    weights,
    write_folder,
    write_patch,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "base", weights(torch.bfloat16), shards=2)


@pytest.fixture
def files(base: Path) -> list[Path]:
    """Two patches of two tensors each, one of them shared."""
    made = [base.parent / f"{letter}.patch.safetensors" for letter in "ab"]
    for place, file in enumerate(made):
        names = LINEAR[place : place + 2]
        write_patch(file, base, {name: [rotation("input", D_IN, place)] for name in names})
    return made


def states(patch: Path, folder: Path, base: Path | None = None) -> list[str]:
    return [tensor.state for tensor in diff_applied(patch, folder, base=base).tensors]


def test_the_lock_says_what_is_there(base: Path, files: list[Path], tmp_path: Path) -> None:
    apply_patches(base, files, tmp_path / "out")
    digests = tuple(read_info(file).digest for file in files)
    for place, file in enumerate(files):
        found = diff_applied(file, tmp_path / "out")
        assert (found.verdict, found.place, found.lock) == ("applied", place, digests)
    assert diff_applied(files[0], base).verdict == "not applied"
    assert states(files[0], base) == ["base", "base"]


def test_what_others_changed_is_theirs(base: Path, files: list[Path], tmp_path: Path) -> None:
    apply_patches(base, files[:1], tmp_path / "out")
    found = diff_applied(files[1], tmp_path / "out")
    assert (found.verdict, found.place) == ("not applied", None)
    assert [tensor.state for tensor in found.tensors] == ["other patches", "base"]


def test_weights_that_were_changed_since_are_not_the_patch(
    base: Path, files: list[Path], tmp_path: Path
) -> None:
    apply_patches(base, files[:1], tmp_path / "out")
    entry = Checkpoint.open(tmp_path / "out").tensor(LINEAR[0])
    shard = tmp_path / "out" / entry.shard
    data = bytearray(shard.read_bytes())
    data[entry.info.start + 1] ^= 0x40
    shard.write_bytes(data)
    found = diff_applied(files[0], tmp_path / "out")
    assert found.verdict == "partly applied"
    assert states(files[0], tmp_path / "out") == ["changed", "patched"]


def test_without_a_lock_the_base_decides(base: Path, files: list[Path], tmp_path: Path) -> None:
    apply_patches(base, files[:1], tmp_path / "out")
    (tmp_path / "out" / "patchkit.lock.json").unlink()
    found = diff_applied(files[0], tmp_path / "out")
    assert (found.verdict, found.lock) == ("unknown", None)
    assert diff_applied(files[0], tmp_path / "out", base=base).verdict == "applied"
    other = diff_applied(files[1], tmp_path / "out", base=base)
    assert other.verdict == "unknown"
    assert [tensor.state for tensor in other.tensors] == ["changed", "base"]


def test_one_rounding_away_is_said(base: Path, files: list[Path], tmp_path: Path) -> None:
    apply_patches(base, files[:1], tmp_path / "out")
    (tmp_path / "out" / "patchkit.lock.json").unlink()
    entry = Checkpoint.open(tmp_path / "out").tensor(LINEAR[0])
    shard = tmp_path / "out" / entry.shard
    data = bytearray(shard.read_bytes())
    data[entry.info.start] ^= 1
    shard.write_bytes(data)
    found = diff_applied(files[0], tmp_path / "out", base=base)
    assert [(tensor.state, tensor.rounding) for tensor in found.tensors] == [
        ("patched", True),
        ("patched", False),
    ]


def test_a_part_of_a_composed_patch_is_applied(
    base: Path, files: list[Path], tmp_path: Path
) -> None:
    parts = [Patch.read(file) for file in files]
    compose(parts).patch.write(tmp_path / "both.patch.safetensors")
    apply_patches(base, [tmp_path / "both.patch.safetensors"], tmp_path / "out")
    assert diff_applied(files[1], tmp_path / "out").place == 0
    half = compose([Part(parts[0], strength=0.5), parts[1]]).patch
    half.write(tmp_path / "half.patch.safetensors")
    apply_patches(base, [tmp_path / "half.patch.safetensors"], tmp_path / "half")
    assert diff_applied(files[0], tmp_path / "half").verdict == "not applied"
    assert diff_applied(files[1], tmp_path / "half").verdict == "applied"


def test_a_folder_that_cannot_hold_it(base: Path, files: list[Path], tmp_path: Path) -> None:
    tensors = weights(torch.bfloat16)
    wide = write_folder(tmp_path / "wide", {k: v.float() for k, v in tensors.items()})
    with pytest.raises(BaseMismatch, match=r"F32 in .*BF16"):
        diff_applied(files[0], wide)
    del tensors[LINEAR[0]]
    with pytest.raises(CheckpointError, match="no tensor"):
        diff_applied(files[0], write_folder(tmp_path / "less", tensors))
    apply_patches(base, files[:1], tmp_path / "out")
    (tmp_path / "out" / "patchkit.lock.json").unlink()
    other = write_folder(tmp_path / "other", weights(torch.bfloat16, seed=1))
    with pytest.raises(BaseMismatch, match="is not the base of the patch"):
        diff_applied(files[0], tmp_path / "out", base=other)
