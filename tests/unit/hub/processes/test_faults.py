"""What goes wrong between a process and the Hub: the sentence, the exit code, what stays."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.testhub import TestHub
from tests.unit.hub.processes.running import (
    NAME,
    REPO,
    Start,
    fails,
    kept,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("token", "repo", "code", "sentence"),
    [
        (None, REPO, 4, "pushing to ada/caps needs a login"),
        ("hf_wrong_secret", REPO, 4, "the Hub does not accept this login"),
        ("hf_ada_read_secret", REPO, 4, "this login may not do this: creating ada/caps"),
        ("hf_ada_write_secret", "bob/new", 4, "this login may not do this: creating bob/new"),
        ("hf_ada_write_secret", "bob/caps", 4, "this login may not do this: pushing to bob/caps"),
    ],
)
def test_logins_that_may_not_push(
    hub: TestHub, start: Start, patch: Path, token: str, repo: str, code: int, sentence: str
) -> None:
    before = {name: repo.head.oid for name, repo in hub.state.repos.items()}
    fails(start("push", patch, repo, token=token), code, sentence)
    assert {name: repo.head.oid for name, repo in hub.state.repos.items()} == before


@pytest.mark.parametrize(
    ("ref", "token", "code", "sentence"),
    [
        ("ada/none", None, 4, "ada/none does not exist or needs a login"),
        ("ada/none", "hf_ada_write_secret", 1, "ada/none does not exist, or this login may not"),
        (f"{REPO}@v9", None, 1, "ada/caps has no revision v9"),
        (f"{REPO}/x.patch.safetensors", None, 1, "ada/caps at main has no file x.patch.safete"),
        (f"{REPO}/README.md", None, 1, "README.md is not a patch"),
        ("bob/caps", None, 1, "bob/caps at main holds no patch"),
        (REPO, "hf_wrong_secret", 4, "the Hub does not accept this login"),
        ("ada", None, 1, "'ada' is not the name of a repository on the Hub"),
    ],
)
def test_names_that_cannot_be_pulled(
    pushed: TestHub,
    start: Start,
    tmp_path: Path,
    ref: str,
    token: str | None,
    code: int,
    sentence: str,
) -> None:
    fails(start("pull", ref, token=token), code, sentence)
    assert kept(tmp_path) == []


def test_gated_and_private(pushed: TestHub, start: Start, tmp_path: Path) -> None:
    repo = pushed.state.repos[REPO]
    repo.gated = True
    fails(start("pull", REPO, token=None), 4, "ada/caps is gated: its owner decides who may read")
    repo.gated, repo.private = False, True
    token = pushed.state.user("eve")
    fails(start("pull", REPO, token=token), 1, "does not exist, or this login may not see it")
    assert kept(tmp_path) == []


def test_a_stale_parent_keeps_both(pushed: TestHub, start: Start, other: Any) -> None:
    theirs = {"notes.txt": b"theirs"}
    pushed.fail("/commit/", before=lambda: pushed.state.put(REPO, theirs, "theirs"))
    done = start("push", other("b"), REPO, "--license", "mit")
    assert done.code == 0, done.stderr
    assert {"notes.txt", NAME, "b.patch.safetensors"} <= pushed.state.repos[REPO].head.files.keys()


@pytest.mark.parametrize("way", [(), ("--create-pr",)])
@pytest.mark.parametrize("cut", [0, 5])
def test_a_lost_answer(
    pushed: TestHub, start: Start, other: Any, way: tuple[str, ...], cut: int
) -> None:
    repo = pushed.state.repos[REPO]
    before = len(repo.commits)
    pushed.fail("/commit/", drop_response_after=cut)
    done = start("push", other("b"), REPO, *way, "--json")
    assert done.code == 0, done.stderr
    data = json.loads(done.stdout)
    assert len(repo.commits) == before + 1
    assert data["revision"] == repo.refs["refs/pr/1" if way else "refs/heads/main"]
    assert bool(data["pull_request"]) == bool(way)


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (429, {"Retry-After": "7"}, "the Hub asks to wait for 7 s: too many requests"),
        (503, {}, "the Hub answers 503 and cannot do it now"),
        (500, {}, "the Hub answers 500 and cannot do it now"),
    ],
)
def test_storms(
    pushed: TestHub,
    start: Start,
    tmp_path: Path,
    status: int,
    headers: dict[str, str],
    sentence: str,
) -> None:
    storm = pushed.fail("/api/models/", status=status, headers=headers, times=99)
    fails(start("pull", REPO), 1, sentence)
    assert kept(tmp_path) == []
    storm.times = 0
    pushed.fail("/resolve/", status=status, headers=headers, times=2)
    done = start("pull", REPO)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("down", ["refused", "cut"])
def test_the_hub_is_down(pushed: TestHub, start: Start, tmp_path: Path, down: str) -> None:
    endpoint = "http://127.0.0.1:9" if down == "refused" else None
    if down == "cut":
        pushed.fail("", drop_request_after=0, times=10_000)
    for arguments in (("pull", REPO), ("log", REPO), ("search",), ("yank", REPO, NAME, "--undo")):
        done = start(*arguments, endpoint=endpoint)
        fails(done, 1, "the Hub cannot be reached")
    assert kept(tmp_path) == []
    pushed.faults.clear()
    first = start("pull", REPO, "-q")
    assert first.code == 0
    if down == "cut":
        pushed.fail("", drop_request_after=0, times=10_000)
    again = start("pull", REPO, endpoint=endpoint)
    assert (again.code, again.stdout.splitlines()[0]) == (0, f"✓ {first.stdout.strip()}")
    commit = pushed.state.repos[REPO].head.oid[:8]
    assert f"the Hub cannot be reached: this is commit {commit}, pulled before" in again.stderr


@pytest.mark.parametrize("room", [0, 1000])
def test_the_disk_is_full(pushed: TestHub, start: Start, tmp_path: Path, room: int) -> None:
    fails(start("pull", REPO, disk=room), 1, "the disk is full: ada/caps")
    assert kept(tmp_path) == []
    assert list((tmp_path / "cache").rglob(".incoming-*")) == []
    assert start("pull", REPO).code == 0


def test_a_bit_flipped_in_the_cache_is_caught_at_the_next_use(
    pushed: TestHub, start: Start, base: Path
) -> None:
    first = start("pull", REPO, "-q")
    assert first.code == 0
    path = Path(first.stdout.strip())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = start("apply", base, f"hf://{REPO}", "-o", "out")
    fails(done, 1, f"the kept copy of {REPO}/{NAME} was changed or damaged")
    assert start("apply", base, f"hf://{REPO}", "-o", "out").code == 0
