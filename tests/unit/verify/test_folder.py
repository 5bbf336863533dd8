"""Verdicts on a folder that apply wrote, and on one that was touched afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.apply.lock import read_lock
from patchkit.errors import CheckpointError
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify import verify_folder, verify_patch
from tests.unit.tensors.folders import (
    CONV,
    LINEAR,
    additive,
    rotation,
    weights,
    write_folder,
    write_patch,
)

NAMES = [
    "lock", "shards", "digest", "base-match", "patched-match", "unchanged", "undo", "facts",
]  # fmt: skip
OF_BASE = ["base-match", "patched-match", "unchanged"]


def patched(tmp_path: Path, dtype: torch.dtype = torch.bfloat16, *, conv: bool = False) -> Path:
    """Two patches on a base of two shards; the second edits a tensor of the first again."""
    base = write_folder(tmp_path / "base", weights(dtype, conv=conv), shards=2)
    names = CONV if conv else LINEAR
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    one = [rotation("input", 20, 1), rotation("output", 12, 2)]
    digest = write_patch(first, base, {names[0]: one, names[1]: [additive(3)]})
    write_patch(second, base, {names[0]: [rotation("input", 20, 4)]}, after=[digest])
    apply_patches(base, [first, second], tmp_path / "out")
    return tmp_path / "out"


def overwrite(folder: Path, name: str, value: bytes, offset: int = 0) -> None:
    """Change some bytes of one tensor where it lies."""
    entry = Checkpoint.open(folder).tensor(name)
    with open(folder / entry.shard, "r+b") as file:
        file.seek(entry.info.start + offset)
        file.write(value)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_apply_wrote(tmp_path: Path, dtype: torch.dtype, conv: bool) -> None:
    report = verify_folder(patched(tmp_path, dtype, conv=conv))
    assert [check.name for check in report.checks] == NAMES
    assert report.ok
    assert {check.name: check.detail for check in report.skipped} == {
        "undo": "made without --undo",
        "facts": "needs --behaviour",
    }
    values = {check.name: (check.value, check.limit) for check in report.checks}
    assert values["digest"] == values["base-match"] == values["patched-match"] == (2, 2)
    total = len(weights(dtype, conv=conv))
    assert values["unchanged"] == (total - 2, total - 2)
    assert values["shards"] == (2, 2)


def test_a_changed_edited_tensor(tmp_path: Path) -> None:
    folder = patched(tmp_path)
    overwrite(folder, LINEAR[0], b"\x80\x3f", offset=10)
    report = verify_folder(folder)
    assert {check.name for check in report.failed} == {"digest", "patched-match"}
    assert report["patched-match"].tensor == LINEAR[0]
    assert report["patched-match"].value == 1
    assert "differs in 1 of 240 values" in report["patched-match"].detail


def test_a_last_bit_fails_the_digest_but_not_the_prediction(tmp_path: Path) -> None:
    folder = patched(tmp_path, torch.bfloat16)
    entry = Checkpoint.open(folder).tensor(LINEAR[1])
    with open(folder / entry.shard, "rb") as file:
        file.seek(entry.info.start)
        low = file.read(1)[0]
    overwrite(folder, LINEAR[1], bytes([low ^ 1]))
    assert verify_folder(folder)["digest"].tensor == LINEAR[1]


def test_another_changed_tensor(tmp_path: Path) -> None:
    folder = patched(tmp_path)
    overwrite(folder, "embed.weight", b"\x00\x00\x80\x3f")
    report = verify_folder(folder)
    assert [check.name for check in report.failed] == ["unchanged"]
    assert report["unchanged"].tensor == "embed.weight"


def test_a_changed_base(tmp_path: Path) -> None:
    folder = patched(tmp_path)
    overwrite(tmp_path / "base", LINEAR[0], b"\x80\x3f\x80\x3f")
    report = verify_folder(folder)
    assert not report["base-match"].ok
    assert report["base-match"].tensor == LINEAR[0]
    assert report["digest"].ok


@pytest.mark.parametrize("gone", ["base", "first.safetensors"])
def test_what_is_gone_is_said(tmp_path: Path, gone: str) -> None:
    folder = patched(tmp_path)
    target = tmp_path / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    report = verify_folder(folder)
    assert report.ok
    assert [check.name for check in report.skipped][-5:] == [*OF_BASE, "undo", "facts"]
    assert all("gone" in report[name].detail for name in OF_BASE)
    assert report["digest"].value == 2


def test_a_changed_lock(tmp_path: Path) -> None:
    folder = patched(tmp_path)
    path = folder / "patchkit.lock.json"
    lock = json.loads(path.read_text())
    lock["tensors"][LINEAR[0]]["after"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(lock))
    report = verify_folder(folder)
    assert [check.name for check in report.checks] == NAMES
    assert [check.name for check in report.failed] == ["lock"]
    assert report["lock"].tensor == LINEAR[0]


def test_a_folder_without_a_lock_is_an_error(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    with pytest.raises(CheckpointError, match="has no lock"):
        verify_folder(base)


def test_a_patched_folder_stands_for_its_base(tmp_path: Path) -> None:
    folder = patched(tmp_path)
    assert read_lock(folder) is not None
    report = verify_patch(tmp_path / "second.safetensors", folder)
    assert report["base-match"].ok
