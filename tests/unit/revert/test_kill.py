"""A kill at any moment of an in-place revert leaves a folder that the next revert completes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.revert import revert
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.undo.restoring import REVERTING
from patchkit.verify import verify_folder
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

# One process for all moments, and a child that dies at each: importing torch takes far longer.
# A moment is the n-th call that the interpreter reports to its auditors (opening, renaming, …).
KILL = """
import os, shutil, signal, sys
from patchkit.revert import revert
folder, copies, *moments = sys.argv[1:]
def run(folder, moment):
    calls = [0]
    def audit(event, args):
        if event in ("open", "os.rename", "os.remove", "os.truncate", "os.listdir"):
            calls[0] += 1
            if calls[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(audit)
    revert(folder)
    return calls[0]
def child(folder, moment):
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        said = os.read(reader, 20)
        os.close(reader)
        return os.waitpid(pid, 0)[1], said
    try:
        os.write(writer, str(run(folder, moment)).encode())
    finally:
        os._exit(0)
whole = os.path.join(copies, "whole")
shutil.copytree(folder, whole)
status, total = child(whole, 0)
assert status == 0, status
total = int(total)
for share in moments:
    copy = os.path.join(copies, share)
    shutil.copytree(folder, copy)
    status, _ = child(copy, 1 + int(float(share) * (total - 1)))
    assert status == signal.SIGKILL, (share, total, status)
"""


def kill_at(tmp_path: Path, shares: list[str], *, undo: bool) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16), shards=3)
    write_patch(tmp_path / "p", base, {name: [rotation("input", D_IN, 1)] for name in LINEAR})
    apply_patches(base, [tmp_path / "p"], tmp_path / "out", undo=undo)
    original = {path.name: path.read_bytes() for path in base.iterdir()}
    patched = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    if undo:
        base.rename(tmp_path / "lost")
    copies = tmp_path / "copies"
    copies.mkdir()
    # The lock names the base and the patch from its own folder, one level deeper here.
    for name in ("p", *(() if undo else ("base",))):
        (copies / name).symlink_to(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(tmp_path / "out"), str(copies), *shares],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for share in shares:
        folder = copies / share
        for shard in Checkpoint.open(folder).shards:
            assert (folder / shard).read_bytes() in (original[shard], patched[shard])
        if (folder / REVERTING).exists() and (folder / "patchkit.lock.json").exists():
            assert not verify_folder(folder)["lock"].ok
        if (folder / "patchkit.lock.json").exists() or (folder / REVERTING).exists():
            revert(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == original
        shutil.rmtree(folder)


@pytest.mark.parametrize("undo", [False, True])
def test_three_moments(tmp_path: Path, undo: bool) -> None:
    kill_at(tmp_path, ["0.31", "0.62", "0.97"], undo=undo)


@pytest.mark.slow
@pytest.mark.parametrize("undo", [False, True])
def test_fifty_moments(tmp_path: Path, undo: bool) -> None:
    kill_at(tmp_path, [f"{(i + 0.5) / 50:.3f}" for i in range(50)], undo=undo)
