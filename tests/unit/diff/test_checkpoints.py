"""Two checkpoints, and the patches that explain what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.diff import Explanation, diff_checkpoints
from patchkit.patch.reader import read_info
from patchkit.tensors.checkpoint import Checkpoint
from tests.unit.tensors.folders import (
    CONV,
    D_IN,
    D_OUT,
    LINEAR,
    additive,
    rotation,
    weights,
    write_folder,
    write_patch,
)

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def three(base: Path, *, conv: bool = False) -> list[Path]:
    """Patches that share some tensors."""
    names = CONV if conv else LINEAR
    files = [base.parent / f"{letter}.patch.safetensors" for letter in "abc"]
    write_patch(files[0], base, {names[0]: [rotation("input", D_IN, 1)]})
    write_patch(files[1], base, {name: [rotation("output", D_OUT, 2)] for name in names[:2]})
    write_patch(files[2], base, {names[2]: [additive(3), rotation("input", D_IN, 4)]})
    return files


def told(files: list[Path], *, exact: bool = True, undone: bool = False) -> Explanation:
    digests = tuple(read_info(file).digest for file in files)
    return Explanation(digests, tuple(file.name for file in files), exact, undone)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_change_is_explained_both_ways(
    tmp_path: Path, dtype: torch.dtype, conv: bool
) -> None:
    base = write_folder(tmp_path / "base", weights(dtype, conv=conv), shards=2)
    files, names = three(base, conv=conv), CONV if conv else LINEAR
    apply_patches(base, files, tmp_path / "out")
    for a, b, undone in ((base, tmp_path / "out", False), (tmp_path / "out", base, True)):
        found = diff_checkpoints(a, b, patches=files)
        assert {change.name: change.explanation for change in found.changes} == {
            names[0]: told(files, undone=undone),  # by two patches, so by the lock's stack
            names[1]: told([files[1]], undone=undone),
            names[2]: told([files[2]], undone=undone),
        }
        assert not found.unexplained
        assert (found.tensors, found.known, found.same_config) == (7, 3, True)


def test_the_lock_names_patches_of_its_own(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    files = three(base)
    apply_patches(base, files[2:], tmp_path / "out")
    assert not diff_checkpoints(base, tmp_path / "out").unexplained
    files[2].unlink()
    found = diff_checkpoints(base, tmp_path / "out")
    assert (found.known, len(found.unexplained)) == (0, 1)


def test_how_much_a_tensor_changed(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    base = write_folder(tmp_path / "base", tensors)
    changed = dict(tensors)
    delta = torch.zeros_like(tensors[LINEAR[0]])
    delta[0, :3] = torch.tensor([1.0, -3.0, 0.5])
    changed[LINEAR[0]] = tensors[LINEAR[0]] + delta
    other = write_folder(tmp_path / "other", changed, shards=3)
    found = diff_checkpoints(base, other)
    (change,) = found.changes
    assert change.name == LINEAR[0]
    assert change.entries == 3 / delta.numel()
    size = tensors[LINEAR[0]].norm()
    assert change.relative == pytest.approx(float(delta.norm() / size), rel=1e-5)
    assert change.largest == pytest.approx(3.0, rel=1e-5)
    assert change.explanation is None
    assert (found.shards, found.shards_changed, found.equal) == (3, 1, False)


def test_equal_whatever_the_shards(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    other = write_folder(tmp_path / "other", weights(torch.bfloat16), shards=3)
    assert diff_checkpoints(base, other).equal
    assert diff_checkpoints(base, base).equal
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 2}))
    found = diff_checkpoints(base, other)
    assert (found.changes, found.same_config, found.equal) == ((), False, False)


def test_tensors_that_are_not_in_both_or_not_alike(tmp_path: Path) -> None:
    tensors = weights(torch.bfloat16)
    base = write_folder(tmp_path / "base", {**tensors, "ids": torch.arange(4)})
    changed = {**tensors, "new": torch.ones(2), "ids": torch.arange(1, 5)}
    changed[LINEAR[1]] = tensors[LINEAR[1]].float()
    del changed[LINEAR[2]]
    found = diff_checkpoints(base, write_folder(tmp_path / "other", changed))
    changes = {change.name: change for change in found.changes}
    assert {name: change.change for name, change in changes.items()} == {
        LINEAR[1]: "unlike",
        LINEAR[2]: "removed",
        "ids": "changed",
        "new": "added",
    }
    assert "F32" in changes[LINEAR[1]].detail
    assert changes["ids"].relative is None


def test_a_value_that_is_not_a_number_is_a_change(tmp_path: Path) -> None:
    tensors = weights(torch.bfloat16)
    base = write_folder(tmp_path / "base", tensors)
    broken = {**tensors, LINEAR[0]: tensors[LINEAR[0]].clone()}
    broken[LINEAR[0]][1, 1] = float("nan")
    files = three(base)
    (change,) = diff_checkpoints(
        base, write_folder(tmp_path / "other", broken), patches=files
    ).changes
    assert change.largest == float("inf")
    assert change.explanation is None


def test_within_one_rounding_is_said(tmp_path: Path) -> None:
    """Another order of sums can leave a value on the other side of a rounding."""
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    files = three(base)
    apply_patches(base, files[2:], tmp_path / "out")
    shard = tmp_path / "out" / "model.safetensors"
    (tmp_path / "out" / "patchkit.lock.json").unlink()
    info = Checkpoint.open(tmp_path / "out").tensor(LINEAR[2]).info
    honest, found = shard.read_bytes(), []
    for weight in range(8):
        data = bytearray(honest)
        data[info.start + 2 * weight] ^= 1  # to a neighbour, which may be the next nearest or not
        shard.write_bytes(data)
        (change,) = diff_checkpoints(base, tmp_path / "out", patches=files).changes
        found.append(change.explanation)
    assert told([files[2]], exact=False) in found
    assert told([files[2]]) not in found
    data[info.start + 1] ^= 0x40  # an exponent
    shard.write_bytes(data)
    (change,) = diff_checkpoints(base, tmp_path / "out", patches=files).changes
    assert change.explanation is None


def test_a_patch_for_another_base_explains_nothing(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    other = write_folder(tmp_path / "other", weights(torch.bfloat16, seed=1))
    files = three(other)
    apply_patches(base, files, tmp_path / "out", allow_other_base=True)
    for file in files:
        file.rename(file.with_name("moved-" + file.name))
    moved = sorted(tmp_path.glob("moved-*"))
    assert len(diff_checkpoints(base, tmp_path / "out", patches=moved).unexplained) == 3


def test_a_patch_that_describes_the_tensor_otherwise_is_not_tried(tmp_path: Path) -> None:
    """A digest is of bytes, which a hostile patch may claim for another shape."""
    same = {LINEAR[0]: torch.zeros(D_OUT, D_IN, dtype=torch.bfloat16)}
    base = write_folder(tmp_path / "zeros", same)
    lying = write_folder(tmp_path / "transposed", {LINEAR[0]: same[LINEAR[0]].T.contiguous()})
    file = tmp_path / "p.patch.safetensors"
    write_patch(file, lying, {LINEAR[0]: [rotation("input", D_OUT, 0)]})
    other = write_folder(tmp_path / "ones", {LINEAR[0]: same[LINEAR[0]] + 1})
    assert len(diff_checkpoints(base, other, patches=[file]).unexplained) == 1
