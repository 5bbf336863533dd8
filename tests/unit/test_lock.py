"""A lock is believed only as long as it is what was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.apply import apply_patches
from patchkit.apply.lock import (
    Lock,
    LockedBase,
    LockedPatch,
    LockedShard,
    LockedTensor,
    read_lock,
    relative_path,
    root_of,
)
from patchkit.errors import CheckpointError, FormatError
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

DIGEST = "sha256:" + 64 * "0"
LOCK = Lock(
    base=LockedBase("../base", None, None, DIGEST),
    patches=(LockedPatch(DIGEST, "../p"),),
    tensors={"a": LockedTensor("model.safetensors", DIGEST, DIGEST)},
    shards={
        "a.safetensors": LockedShard("unchanged", None, None),
        "model.safetensors": LockedShard("rewritten", None, DIGEST),
    },
)
BYTES = LOCK.to_json()


def read(folder: Path, data: bytes) -> Lock | None:
    (folder / "patchkit.lock.json").write_bytes(data)
    return read_lock(folder)


@pytest.fixture
def patched(tmp_path: Path) -> Path:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    write_patch(tmp_path / "p", base, {LINEAR[0]: [rotation("input", D_IN, 1)]})
    apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    return tmp_path / "out"


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    assert read(tmp_path, BYTES) == LOCK


@given(position=st.integers(0, len(BYTES) - 1), value=st.integers(32, 126))
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    data = BYTES[:position] + bytes([value]) + BYTES[position + 1 :]
    folder = tmp_path_factory.mktemp("lock")
    if data == BYTES:
        return
    with pytest.raises(FormatError, match=r"patchkit\.lock\.json"):
        read(folder, data)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "patchkit.lock/2"},
        {"base": []},
        {"base": {"path": 1, "repo": None, "revision": None, "config_digest": DIGEST}},
        {"patches": [{}]},
        {"patches": {}},
        {"tensors": {"a": {"shard": 1, "before": DIGEST, "after": DIGEST}}},
        {"shards": []},
        {"shards": {"a": 1}},
        {"shards": {"a": {"state": "rewritten", "before": None, "after": 1}}},
        {"shards": {"a": {"state": None, "before": None, "after": None}}},
        {"more": 1},
    ],
)
def test_another_content_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        read(tmp_path, json.dumps(json.loads(BYTES) | change).encode())


@pytest.mark.parametrize("shard", ["../victim", "/etc/passwd", "a/b", "..", "", "a\n", "x" * 256])
def test_a_shard_elsewhere_is_refused_whatever_the_digest_says(tmp_path: Path, shard: str) -> None:
    tensors = {"a": LockedTensor(shard, DIGEST, DIGEST)}
    with pytest.raises(FormatError, match="is not the name of a shard"):
        read(tmp_path, replace(LOCK, tensors=tensors).to_json())
    shards = {shard: LockedShard("unchanged", None, None)}
    with pytest.raises(FormatError, match="is not the name of a shard"):
        read(tmp_path, replace(LOCK, shards=shards).to_json())


@pytest.mark.parametrize("path", ["../" + "x" * 256, "a\0b"])
def test_a_path_that_no_file_has_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(FormatError, match="is not a path"):
        read(tmp_path, replace(LOCK, patches=(LockedPatch(DIGEST, path),)).to_json())
    with pytest.raises(FormatError, match="is not a path"):
        read(tmp_path, replace(LOCK, base=replace(LOCK.base, path=path)).to_json())


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"\xff", b"{" * 50, b"[" * 100_000])
def test_what_is_no_lock_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError):
        read(tmp_path, data)


def test_a_folder_without_a_lock_is_its_own_root(tmp_path: Path) -> None:
    assert root_of(tmp_path) == (tmp_path, ())


def test_the_root_and_its_patches_are_found(patched: Path) -> None:
    root, patches = root_of(patched)
    assert root == patched.parent / "base"
    assert patches == (patched.parent / "p",)


def test_a_base_that_is_gone_is_said(patched: Path) -> None:
    (patched.parent / "base").rename(patched.parent / "elsewhere")
    with pytest.raises(CheckpointError, match=r"made from \.\./base, which is gone"):
        root_of(patched)


def test_a_patch_that_is_gone_or_another_is_said(patched: Path) -> None:
    patch = patched.parent / "p"
    patch.write_bytes(patch.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="another file now") as caught:
        root_of(patched)
    assert "with all patches in order" in (caught.value.hint or "")
    patch.unlink()
    with pytest.raises(CheckpointError, match="which is gone"):
        root_of(patched)


def test_paths_are_seen_from_the_folder(tmp_path: Path) -> None:
    assert relative_path(tmp_path / "a" / "b", tmp_path / "c") == "../a/b"
