"""What travels between a process and the Hub, whole or in chunks: it arrives, or nothing does."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from patchkit.hub import pull
from tests.hubroutes import Plane
from tests.testhub import TestHub
from tests.unit.hub.processes.running import (
    FETCHING,
    NAME,
    REPO,
    SENDING,
    Start,
    both_ways,
    fails,
    kept,
    until,
    xet_only,
)
from tests.xorbs import chunks

pytestmark = pytest.mark.slow


@both_ways
def test_what_is_pushed_comes_back_and_applies(
    pushed: TestHub, start: Start, patch: Path, base: Path, tmp_path: Path, way: str
) -> None:
    pulled = start("pull", REPO, "-q")
    assert pulled.code == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).read_bytes() == patch.read_bytes()
    assert {call.path.split("/")[1] for call in pushed.calls(FETCHING)} == {
        "object" if way == "lfs" else "xorb"
    }
    assert start("verify", f"hf://{REPO}", "--base", base).code == 0
    assert start("apply", base, f"hf://{REPO}", "-o", "a", "-q").code == 0
    assert start("apply", base, patch, "-o", "b", "-q").code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


@xet_only
@pytest.mark.parametrize("way", ["xet"])
def test_a_server_that_knows_the_first_version_only(
    hub: TestHub, start: Start, patch: Path
) -> None:
    hub.cas.old = True
    assert start("push", patch, REPO).code == 0
    done = start("pull", REPO, "-q")
    assert done.code == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == patch.read_bytes()
    assert hub.calls("/v1/xorbs/", "POST") != []
    assert hub.calls("/grant/") == []


@xet_only
@pytest.mark.parametrize("way", ["xet"])
def test_what_came_in_chunks_can_be_had_in_one_piece(
    pushed: TestHub, start: Start, patch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    report = pull(REPO, tmp_path / "store", endpoint=pushed.endpoint)
    assert report.path.read_bytes() == patch.read_bytes()
    assert pushed.calls("/object/") != []


@both_ways
@pytest.mark.parametrize("place", [SENDING, "/commit/"])
def test_an_upload_that_is_killed_is_run_again(
    hub: TestHub, start: Start, patch: Path, place: str
) -> None:
    hub.state.repo(REPO)
    plane = "store" if place == SENDING else "hub"
    hub.fail(place, plane=plane, delay=1.0)
    running = start("push", patch, REPO)
    until(lambda: hub.calls(place))
    running.kill()
    done = start("push", patch, REPO, "-q")
    assert done.code == 0, done.stderr
    files = hub.state.repos[REPO].head.files
    assert files[NAME].data == patch.read_bytes()
    assert sum(blob.data == patch.read_bytes() for blob in files.values()) == 1


@both_ways
def test_an_upload_that_is_cut_for_good_is_one_sentence(
    hub: TestHub, start: Start, patch: Path
) -> None:
    hub.fail(SENDING, plane="store", drop_request_after=100, times=99)
    hub.fail("/v1/xorbs/", plane="cas", drop_request_after=100, times=99)
    done = start("push", patch, REPO)
    fails(done, 1, "pushing to ada/caps")
    assert hub.state.repos[REPO].head.files == {}


@both_ways
def test_an_upload_that_is_cut_begins_again(hub: TestHub, start: Start, patch: Path) -> None:
    hub.fail(SENDING, plane="store", drop_request_after=100)
    done = start("push", patch, REPO)
    assert done.code == 0, done.stderr
    assert hub.state.repos[REPO].head.files[NAME].data == patch.read_bytes()


@both_ways
def test_a_download_that_is_killed_begins_anew(
    pushed: TestHub, start: Start, patch: Path, tmp_path: Path
) -> None:
    pushed.fail(FETCHING, plane="store", method="GET", delay=1.0)
    running = start("pull", REPO)
    until(lambda: pushed.calls(FETCHING, "GET"))
    running.kill()
    left = list((tmp_path / "cache").rglob(".incoming-*"))
    assert left != []
    done = start("pull", REPO, "-q")
    assert done.code == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == patch.read_bytes()
    assert list((tmp_path / "cache").rglob(".incoming-*")) == []


@both_ways
def test_a_download_that_is_cut_goes_on(pushed: TestHub, start: Start, patch: Path) -> None:
    pushed.fail(FETCHING, plane="store", drop_response_after=1000)
    done = start("pull", REPO, "-q")
    assert done.code == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == patch.read_bytes()
    assert len(pushed.calls(FETCHING, "GET")) == 2


@both_ways
def test_a_download_that_is_cut_for_good_leaves_nothing(
    pushed: TestHub, start: Start, tmp_path: Path
) -> None:
    pushed.fail(FETCHING, plane="store", drop_response_after=1000, times=99)
    done = start("pull", REPO)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pulling ada/caps@")
    assert kept(tmp_path) == []


@both_ways
def test_wrong_bytes_from_storage(pushed: TestHub, start: Start, tmp_path: Path) -> None:
    pushed.fail(FETCHING, plane="store", corrupt=True)
    fails(start("pull", REPO), 1, f"{NAME} arrived damaged: sha256:")
    assert kept(tmp_path) == []


@both_ways
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_bit_that_flipped_in_storage_is_caught(
    pushed: TestHub, start: Start, tmp_path: Path, way: str, place: float
) -> None:
    flip(pushed, way, place)
    done = start("pull", REPO)
    fails(done, 1, NAME)
    assert kept(tmp_path) == []
    flip(pushed, way, place)
    assert start("pull", REPO).code == 0


def flip(hub: TestHub, way: str, place: float) -> None:
    """Turn one bit of the stored patch around."""
    repo = hub.state.repos[REPO]
    sha256 = repo.head.files[NAME].sha256
    stored, name, first, last = repo.objects, sha256, 0, len(repo.objects[sha256]) - 1
    if way == "xet":
        term = hub.cas.files[hub.cas.names[sha256]].terms[0]
        stored, name = hub.cas.xorbs, term.xorb
        inside = chunks(stored[name])[term.first : term.last]
        first, last = inside[0].start, inside[-1].end - 1
    data = bytearray(stored[name])
    data[first + round((last - first) * place)] ^= 1
    stored[name] = bytes(data)


@both_ways
def test_tokens_go_where_they_are_for(pushed: TestHub, start: Start, tmp_path: Path) -> None:
    assert start("pull", REPO).code == 0
    for request in pushed.requests:
        token = "xet_" if request.plane == "cas" else "hf_ada_" if request.plane == "hub" else None
        sent = request.headers.get("authorization", "")
        assert sent.startswith(f"Bearer {token}") if token else sent == ""
        assert "_secret" not in request.path + str(request.query)
        assert str(request.headers).count("_secret") == bool(token)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if b"_secret" in path.read_bytes()] == []


@xet_only
@pytest.mark.parametrize("way", ["xet"])
@pytest.mark.parametrize(
    ("place", "plane", "fault", "code", "sentence"),
    [
        ("xet-write-token", "hub", 403, 4, "this login may not do this: pushing to ada/caps"),
        ("xet-write-token", "hub", 429, 1, "the Hub asks to wait: too many requests"),
        ("/v1/shards", "cas", 503, 1, "the Hub answers 503 and cannot do it now"),
        ("/v1/shards", "cas", 400, 1, "pushing to ada/caps: the storage of the Hub answers 400"),
        (".", "cas", "cut", 1, "pushing to ada/caps: the Hub cannot be reached"),
    ],
)
def test_chunks_that_cannot_be_pushed(
    hub: TestHub,
    start: Start,
    patch: Path,
    place: str,
    plane: Plane,
    fault: int | str,
    code: int,
    sentence: str,
) -> None:
    how = {"drop_request_after": 0} if fault == "cut" else {"status": fault}
    hub.fail(place, plane=plane, times=99, **how)
    fails(start("push", patch, REPO), code, sentence)
    assert hub.state.repos[REPO].head.files == {}


@xet_only
@pytest.mark.parametrize("way", ["xet"])
@pytest.mark.parametrize(
    ("place", "plane", "fault", "code", "sentence"),
    [
        ("xet-read-token", "hub", 403, 4, "this login may not do this: pulling ada/caps"),
        ("xet-read-token", "hub", 503, 1, "the Hub answers 503 and cannot do it now"),
        ("/reconstructions/", "cas", 404, 1, "the storage of the Hub answers 404"),
        ("/reconstructions/", "cas", 503, 1, "the Hub answers 503 and cannot do it now"),
        ("/reconstructions/", "cas", "cut", 1, "the Hub cannot be reached"),
        ("/xorb/", "store", 403, 4, "this login may not do this: pulling ada/caps"),
    ],
)
def test_chunks_that_cannot_be_pulled(
    pushed: TestHub,
    start: Start,
    tmp_path: Path,
    place: str,
    plane: Plane,
    fault: int | str,
    code: int,
    sentence: str,
) -> None:
    how = {"drop_request_after": 0} if fault == "cut" else {"status": fault}
    pushed.fail(place, plane=plane, times=99, **how)
    fails(start("pull", REPO), code, sentence)
    assert kept(tmp_path) == []


@both_ways
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
