"""A folder from a stranger: nothing outside it is written, whatever its lock and links say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.apply.lock import Lock, read_lock
from patchkit.errors import CheckpointError, FormatError
from patchkit.revert import revert
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A patched folder of two shards, with an undo sidecar."""
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=2)
    write_patch(tmp_path / "p", base, {LINEAR[0]: [rotation("input", D_IN, 1)]})
    apply_patches(base, [tmp_path / "p"], tmp_path / "out", undo=True)
    return tmp_path / "out"


def relock(out: Path, shard: str) -> None:
    """Let the lock place the edited tensor elsewhere, with all its digests in order."""
    lock = read_lock(out)
    assert isinstance(lock, Lock)
    tensors = {name: replace(tensor, shard=shard) for name, tensor in lock.tensors.items()}
    (out / "patchkit.lock.json").write_bytes(replace(lock, tensors=tensors).to_json())


def test_a_lock_cannot_lead_to_a_shard_elsewhere(out: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes((tmp_path / "base" / "model-00001-of-00002.safetensors").read_bytes())
    before = (victim.read_bytes(), victim.stat().st_ino)
    relock(out, "../victim.safetensors")
    with pytest.raises(FormatError, match="is not the name of a shard"):
        revert(out)
    assert (victim.read_bytes(), victim.stat().st_ino) == before


def test_a_lock_that_names_another_shard_of_the_folder_is_refused(out: Path) -> None:
    lock = read_lock(out)
    assert lock is not None
    other = next(name for name in lock.shards if name != lock.tensors[LINEAR[0]].shard)
    relock(out, other)
    with pytest.raises(CheckpointError, match="and its lock says"):
        revert(out)


@pytest.mark.parametrize("name", ["patchkit.revert.json", "model-00002-of-00002.safetensors"])
def test_a_link_in_the_folder_is_replaced_and_not_written_through(
    out: Path, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    there = out / name
    victim.write_bytes(there.read_bytes() if there.exists() else b"mine")
    before = victim.read_bytes()
    there.unlink(missing_ok=True)
    there.symlink_to(victim)
    revert(out)
    assert victim.read_bytes() == before
    assert not (out / "model-00002-of-00002.safetensors").is_symlink()
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
