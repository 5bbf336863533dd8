"""A kill at any moment leaves the old folder or the new one, and the next run finishes the work."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@dataclass(frozen=True)
class Work:
    """Two patches of one base, what each makes of it, and a process that applies them."""

    place: Path
    server: subprocess.Popen[str]
    made: dict[str, dict[str, bytes]]

    def run(self, patch: str, event: int = 0, delay: float = 0.0) -> tuple[int, int]:
        """Apply in a process; its exit code, and how often it touched the file system."""
        assert self.server.stdin
        assert self.server.stdout
        paths = (self.place / name for name in ("base", patch, "out"))
        print(*paths, event, delay, sep="\t", file=self.server.stdin, flush=True)
        code, seen = map(int, self.server.stdout.readline().split())
        return code, seen

    def names(self) -> set[str]:
        return {path.name for path in self.place.iterdir()}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    place = tmp_path_factory.mktemp("killed")
    base = write_folder(place / "base", weights(torch.float32), shards=3)
    made = {}
    for index, name in enumerate("ab"):
        turns = {tensor: [rotation("input", D_IN, index)] for tensor in LINEAR}
        write_patch(place / name, base, turns)
        apply_patches(base, [place / name], place / "out", overwrite=True)
        made[name] = contents(place / "out")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.unit.killable"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Work(place, server, made)
        assert server.stdin
        server.stdin.close()


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_the_old_folder_or_the_new_one(work: Work, kills: int) -> None:
    assert work.run("b")[0] == 0
    code, events = work.run("a")
    assert (code, contents(work.place / "out")) == (0, work.made["a"])
    assert events > 50
    moments, codes, old = random.Random(kills), [], "a"
    for _ in range(kills):
        new = "b" if old == "a" else "a"
        event = moments.randint(1, events)
        codes.append(work.run(new, event, moments.choice((0.0, moments.uniform(0, 0.01))))[0])
        assert contents(work.place / "out") in (work.made[old], work.made[new])
        assert work.run(new)[0] == 0
        assert contents(work.place / "out") == work.made[new]
        assert work.names() == {"base", "a", "b", "out"}
        old = new
    assert set(codes) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in codes
