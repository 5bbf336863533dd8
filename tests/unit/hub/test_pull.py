"""Fetching a patch: pinned, compared, verified, and kept only then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from patchkit.errors import (
    AccessDenied,
    BaseMismatch,
    FormatError,
    HubError,
    HubUnreachable,
    OutputError,
)
from patchkit.hub import PullReport, push
from patchkit.hub import pull as pull_patch
from patchkit.patch.reader import read_info
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"
Pull = Callable[..., PullReport]


@pytest.fixture
def pushed(hub: TestHub, login: Login, patch: Path, monkeypatch: pytest.MonkeyPatch) -> TestHub:
    """The hub with one patch in REPO, seen by nobody in particular."""
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    return hub


@pytest.fixture
def pull(hub: TestHub, store: Path) -> Pull:
    def run(ref: str = REPO, **options: Any) -> PullReport:
        return pull_patch(ref, store, **{"endpoint": hub.endpoint, **options})

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def kept(store: Path) -> list[str]:
    """Every file in the store."""
    return sorted(path.name for path in store.rglob("*") if path.is_file())


def test_what_was_pushed_comes_back(pushed: TestHub, pull: Pull, patch: Path) -> None:
    report = pull()
    assert report.path.read_bytes() == patch.read_bytes()
    assert report.digest == read_info(patch).digest
    assert report.revision == pushed.state.repos[REPO].head.oid
    assert (report.listed, report.cached, report.offline) == (True, False, False)
    assert report.checks.ok


def test_only_the_verified_file_is_left(pushed: TestHub, pull: Pull, store: Path) -> None:
    pull()
    assert kept(store) == [f".{NAME}.origin", NAME, f"{NAME}.sha256", "main"]
    assert [path.name for path in store.iterdir()] == ["ada--caps"]


def test_branch_tag_commit_and_pull_request_are_pinned(
    pushed: TestHub, pull: Pull, login: Login, other: Callable[..., Path]
) -> None:
    login()
    push([other("b")], REPO, tag="v2", endpoint=pushed.endpoint)
    push([other("c")], REPO, create_pr=True, endpoint=pushed.endpoint)
    repo = pushed.state.repos[REPO]
    assert pull(f"{REPO}@v2/b.patch.safetensors").revision == repo.refs["refs/tags/v2"]
    assert pull(f"{REPO}@{repo.head.parent}").file == NAME
    proposed = pull(f"hf://{REPO}@refs/pr/1/c.patch.safetensors")
    assert proposed.revision == repo.refs["refs/pr/1"]


def test_a_commit_pulled_before_needs_no_network(pushed: TestHub, pull: Pull, patch: Path) -> None:
    first = pull()
    pushed.requests.clear()
    again = pull(f"{REPO}@{first.revision}/{NAME}", endpoint="http://127.0.0.1:9")
    assert (again.path, again.cached, again.offline) == (first.path, True, False)
    assert pushed.requests == []


def test_an_unchanged_branch_is_not_fetched_again(pushed: TestHub, pull: Pull) -> None:
    pull()
    pushed.requests.clear()
    assert pull().cached
    assert [request.path for request in pushed.requests] == [f"/api/models/{REPO}"]


@pytest.mark.parametrize("down", ["gone", "offline mode", 503, 500])
def test_without_the_hub_the_last_known_copy_serves(
    pushed: TestHub, pull: Pull, down: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pull()
    pushed.requests.clear()
    if down == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        again = pull()
        assert pushed.requests == []
    elif down == "gone":
        again = pull(endpoint="http://127.0.0.1:9")
    else:
        pushed.fail("/api/models/", status=down, times=99)
        again = pull()
    assert (again.path, again.offline) == (first.path, True)


def test_without_the_hub_and_a_copy_one_sentence_says_so(pull: Pull, store: Path) -> None:
    with pytest.raises(HubUnreachable, match="looking at ada/caps: the Hub cannot be reached"):
        pull(endpoint="http://127.0.0.1:9")
    assert kept(store) == []


def test_a_bit_flipped_in_storage_is_caught_and_nothing_kept(
    pushed: TestHub, pull: Pull, store: Path
) -> None:
    pushed.fail("/object/", plane="store", corrupt=True)
    with pytest.raises(FormatError, match=f"{NAME} arrived damaged") as caught:
        pull()
    assert {"expected", "found"} <= caught.value.details.keys()
    assert kept(store) == []
    assert pull().checks.ok


def test_a_bit_flipped_in_the_store_is_caught_at_the_next_use(
    pushed: TestHub, pull: Pull, store: Path
) -> None:
    path = pull().path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"the kept copy of ada/caps/capitals.* was changed"):
        pull()
    assert pull().checks.ok


def test_the_index_must_agree_with_the_file(pushed: TestHub, pull: Pull, store: Path) -> None:
    repo = pushed.state.repos[REPO]
    index = json.loads(repo.head.files["patchkit.index.json"].data)
    index["patches"][0]["digest"] = "sha256:" + "0" * 64
    pushed.state.put(REPO, {"patchkit.index.json": json.dumps(index).encode()})
    with pytest.raises(FormatError, match=r"is not the patch that patchkit\.index\.json lists"):
        pull()
    index["patches"] = []
    pushed.state.put(REPO, {"patchkit.index.json": json.dumps(index).encode()})
    with pytest.raises(FormatError, match="does not list it"):
        pull()
    assert kept(store) == []


@pytest.mark.parametrize(
    "index", [b"", b"[]", b'{"schema":"patchkit.index/2","patches":[]}', b"\xff", b"{" * 5000]
)
def test_a_bad_index_is_one_sentence(pushed: TestHub, pull: Pull, index: bytes) -> None:
    pushed.state.put(REPO, {"patchkit.index.json": index})
    with pytest.raises(FormatError, match=r"patchkit\.index\.json"):
        pull()


def test_a_file_that_is_no_patch_is_not_kept(hub: TestHub, pull: Pull, store: Path) -> None:
    hub.state.repo(REPO)
    hub.state.put(REPO, {NAME: b'\x08\0\0\0\0\0\0\0{"a":1} '})
    with pytest.raises(FormatError, match="is not a patch that can be shared"):
        pull()
    assert kept(store) == []


def test_a_patch_without_an_index_is_said_to_have_none(
    hub: TestHub, pull: Pull, patch: Path
) -> None:
    hub.state.repo(REPO)
    hub.state.put(REPO, {NAME: patch.read_bytes()})
    assert pull().listed is False


def test_the_base_is_checked_before_anything_is_kept(
    pushed: TestHub, pull: Pull, base: Path, store: Path, tmp_path: Path
) -> None:
    from tests.unit.models.factory import save_tiny

    save_tiny("llama2", tmp_path / "another", seed=9)
    with pytest.raises(BaseMismatch, match="0 of 1 tensors match"):
        pull(base=tmp_path / "another")
    assert kept(store) == []
    assert pull(base=base).checks["base-match"].ok


def test_of_several_patches_one_is_named(
    pushed: TestHub, pull: Pull, login: Login, other: Callable[..., Path]
) -> None:
    login()
    push([other("b")], REPO, endpoint=pushed.endpoint)
    with pytest.raises(HubError, match="holds 2 patches; name one of them") as caught:
        pull()
    assert caught.value.details["patches"] == ["b.patch.safetensors", NAME]
    assert pull(f"{REPO}/b.patch.safetensors").file == "b.patch.safetensors"
    with pytest.raises(HubError, match=r"has no file c\.patch\.safetensors"):
        pull(f"{REPO}/c.patch.safetensors")
    with pytest.raises(HubError, match="is not a patch"):
        pull(f"{REPO}/README.md")


@pytest.mark.parametrize("path", [f"../{NAME}", f"a/../../{NAME}", f"a\x1b[2J{NAME}"])
def test_a_path_that_leads_away_is_refused(
    hub: TestHub, pull: Pull, patch: Path, store: Path, path: str
) -> None:
    hub.state.repo(REPO)
    hub.state.put(REPO, {path: patch.read_bytes()})
    with pytest.raises(HubError, match="is not a file name"):
        pull()
    assert kept(store) == []


def test_a_cut_download_goes_on_where_it_was(
    pushed: TestHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    pushed.fail("/object/", plane="store", drop_response_after=1000)
    assert pull().checks.ok
    assert pushed.calls("/object/")[-1].headers["range"] == "bytes=1000-"


def test_a_download_that_ends_for_good_leaves_nothing(
    pushed: TestHub, pull: Pull, store: Path
) -> None:
    pushed.fail("/object/", plane="store", drop_response_after=1000, times=99)
    with pytest.raises(HubError):
        pull()
    assert kept(store) == []


def test_names_that_are_not_there(pushed: TestHub, pull: Pull) -> None:
    with pytest.raises(HubError, match="ada/caps has no revision v9"):
        pull(f"{REPO}@v9")
    with pytest.raises(AccessDenied, match="ada/none does not exist or needs a login"):
        pull("ada/none")


def test_a_listed_file_that_is_not_there(pushed: TestHub, pull: Pull) -> None:
    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40}
    pushed.fail(f"/resolve/.*/{NAME}", status=404, headers=headers, times=9)
    with pytest.raises(HubError, match=f"{REPO} has no file {NAME}"):
        pull()


def test_private_and_gated(pushed: TestHub, pull: Pull, login: Login) -> None:
    repo = pushed.state.repos[REPO]
    repo.private = True
    with pytest.raises(AccessDenied, match="does not exist or needs a login"):
        pull()
    login("eve")
    with pytest.raises(HubError, match="or this login may not see it"):
        pull()
    repo.private, repo.gated = False, True
    with pytest.raises(AccessDenied, match="is gated") as caught:
        pull()
    assert f"https://huggingface.co/{REPO}" in (caught.value.hint or "")
    repo.allowed.add("eve")
    assert pull().checks.ok


def test_too_many_requests(pushed: TestHub, pull: Pull) -> None:
    pushed.fail("/api/models/", status=429, headers={"Retry-After": "7"}, times=99)
    with pytest.raises(HubError, match="the Hub asks to wait for 7 s"):
        pull()


def test_a_full_disk(pushed: TestHub, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from patchkit.hub import store as store_module

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        pull()


@pytest.mark.parametrize("note", [".origin", ".sha256"])
def test_a_disk_that_is_full_at_the_very_end_keeps_nothing(
    pushed: TestHub, pull: Pull, store: Path, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    from patchkit.hub import store as store_module

    write = store_module.write_atomically

    def full(path: Path, data: bytes) -> None:
        if path.name.endswith(note):
            raise OutputError(f"{path.name} could not be written")
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomically", full)
    with pytest.raises(OutputError, match=f"{note} could not be written"):
        pull()
    assert kept(store) == []


def test_a_pull_sends_the_token_to_the_hub_only(pushed: TestHub, pull: Pull, login: Login) -> None:
    token = login()
    pull()
    seen = {request.plane: request.headers.get("authorization") for request in pushed.requests}
    assert seen == {"hub": f"Bearer {token}", "store": None}
