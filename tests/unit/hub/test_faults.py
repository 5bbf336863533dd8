"""What goes wrong between a process and the Hub: the sentence, the exit code, what stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hubstate import State
from tests.testhub import TestHub

REPO = "ada/caps"
NAME = "capitals.patch.safetensors"
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Running:
    """One command in a process of its own."""

    process: int
    folder: Path

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        while _alive(self.process):
            time.sleep(0.01)

    @property
    def code(self) -> int:
        """The exit code, waited for."""
        end = time.monotonic() + 60
        while not (self.folder / "code").is_file():
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)
        return int((self.folder / "code").read_text())

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestHub, Any]]:
    """A hub, and the process from which commands are started."""
    home = tmp_path_factory.mktemp("home")
    with TestHub() as hub:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "PATCHKIT_NO_PROGRESS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
        }
        with subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("impatient.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            yield hub, process
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def hub(station: tuple[TestHub, Any]) -> Iterator[TestHub]:
    """The hub as if it had just begun; ada may write, bob and carl have repositories."""
    hub = station[0]
    hub.state, hub.requests, hub.faults = State(), [], []
    hub.errors, hub.leaks = [], []
    hub.state.user("ada")
    hub.state.user("ada", role="read")
    hub.state.repo("bob/caps")
    yield hub
    hub.faults = []
    assert hub.errors == []
    assert hub.leaks == []


Start = Callable[..., Running]


@pytest.fixture
def start(station: tuple[TestHub, Any], tmp_path: Path, hub: TestHub) -> Start:
    process, begun = station[1], iter(range(1000))

    def begin(
        *arguments: object,
        token: str | None = "hf_ada_write_secret",
        disk: int | None = None,
        endpoint: str | None = None,
    ) -> Running:
        folder = tmp_path / f"run{next(begun)}"
        folder.mkdir()
        environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_TOKEN": token or ""}
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "folder": str(folder),
            "disk": disk,
            "endpoint": endpoint,
        }
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return Running(int(process.stdout.readline()), folder)

    return begin


@pytest.fixture
def pushed(hub: TestHub, start: Start, patch: Path) -> TestHub:
    """The hub with the patch in ada's repository."""
    assert start("push", patch, REPO, "--license", "mit").code == 0
    hub.requests.clear()
    return hub


def kept(tmp_path: Path) -> list[str]:
    """What a pull left behind."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def fails(done: Running, code: int, sentence: str) -> None:
    assert (done.code, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "_secret" not in done.stderr


def test_what_is_pushed_comes_back_and_applies(
    pushed: TestHub, start: Start, patch: Path, base: Path, tmp_path: Path
) -> None:
    pulled = start("pull", REPO, "-q")
    assert pulled.code == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).read_bytes() == patch.read_bytes()
    assert start("verify", f"hf://{REPO}", "--base", base).code == 0
    assert start("apply", base, f"hf://{REPO}", "-o", "a", "-q").code == 0
    assert start("apply", base, patch, "-o", "b", "-q").code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


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


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("place", ["/upload/", "/commit/"])
def test_an_upload_that_is_killed_is_run_again(
    hub: TestHub, start: Start, patch: Path, place: str
) -> None:
    hub.state.repo(REPO)
    plane = "store" if place == "/upload/" else "hub"
    hub.fail(place, plane=plane, delay=1.0)
    running = start("push", patch, REPO)
    until(lambda: hub.calls(place))
    running.kill()
    done = start("push", patch, REPO, "-q")
    assert done.code == 0, done.stderr
    files = hub.state.repos[REPO].head.files
    assert files[NAME].data == patch.read_bytes()
    assert sum(blob.data == patch.read_bytes() for blob in files.values()) == 1


def test_an_upload_that_is_cut_for_good_is_one_sentence(
    hub: TestHub, start: Start, patch: Path
) -> None:
    hub.fail("/upload/", plane="store", drop_request_after=100, times=99)
    done = start("push", patch, REPO)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pushing to ada/caps")
    assert "Traceback" not in done.stderr


def test_a_download_that_is_killed_begins_anew(
    pushed: TestHub, start: Start, patch: Path, tmp_path: Path
) -> None:
    pushed.fail("/object/", plane="store", method="GET", delay=1.0)
    running = start("pull", REPO)
    until(lambda: pushed.calls("/object/", "GET"))
    running.kill()
    left = list((tmp_path / "cache").rglob(".incoming-*"))
    assert left != []
    done = start("pull", REPO, "-q")
    assert done.code == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == patch.read_bytes()
    assert list((tmp_path / "cache").rglob(".incoming-*")) == []


def test_a_download_that_is_cut_goes_on(pushed: TestHub, start: Start, patch: Path) -> None:
    pushed.fail("/object/", plane="store", drop_response_after=1000)
    done = start("pull", REPO, "-q")
    assert done.code == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == patch.read_bytes()
    assert len(pushed.calls("/object/", "GET")) == 2


def test_a_download_that_is_cut_for_good_leaves_nothing(
    pushed: TestHub, start: Start, tmp_path: Path
) -> None:
    pushed.fail("/object/", plane="store", drop_response_after=1000, times=99)
    done = start("pull", REPO)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pulling ada/caps@")
    assert kept(tmp_path) == []


def test_wrong_bytes_from_storage(pushed: TestHub, start: Start, tmp_path: Path) -> None:
    pushed.fail("/object/", plane="store", corrupt=True)
    fails(start("pull", REPO), 1, f"{NAME} arrived damaged: sha256:")
    assert kept(tmp_path) == []


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


def test_eight_processes_push_at_once_and_nothing_is_lost(
    hub: TestHub, start: Start, other: Any
) -> None:
    hub.state.repo(REPO)
    paths = [other(f"p{seed}", seed=seed) for seed in range(8)]
    running = [start("push", path, REPO) for path in paths]
    assert [each.code for each in running] == [0] * 8
    files = hub.state.repos[REPO].head.files
    assert {path.name: files[path.name].data for path in paths} == {
        path.name: path.read_bytes() for path in paths
    }
    index = json.loads(files["patchkit.index.json"].data)
    assert sorted(each["path"] for each in index["patches"]) == sorted(p.name for p in paths)
    assert all(f"## `{path.name}`" in files["README.md"].data.decode() for path in paths)
