"""Withdrawing a patch: the index says so, the card says so, nobody gets it any more."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from patchkit.errors import AccessDenied, FormatError, HubError, PatchWithdrawn
from patchkit.hub import pull, push, yank
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"
REASON = "line 3 names the wrong city"


@pytest.fixture
def series(hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]) -> TestHub:
    """Two patches, the first of them also under a tag."""
    login()
    push([patch], REPO, tag="v1", endpoint=hub.endpoint)
    push([other("b")], REPO, endpoint=hub.endpoint)
    return hub


def content(hub: TestHub, path: str) -> bytes:
    return hub.state.repos[REPO].head.files[path].data


def withdrawn(hub: TestHub) -> list[str | None]:
    entries = json.loads(content(hub, "patchkit.index.json"))["patches"]
    return [each.get("withdrawn") for each in entries]


@pytest.mark.parametrize("ref", [f"{REPO}/{NAME}", f"{REPO}@v1/{NAME}"])
@pytest.mark.parametrize("seen", [False, True])
def test_a_withdrawn_patch_is_refused_with_the_reason(
    series: TestHub, tmp_path: Path, ref: str, seen: bool
) -> None:
    if seen:
        pull(ref, tmp_path / "store", endpoint=series.endpoint)
    report = yank(REPO, NAME, REASON, endpoint=series.endpoint)
    assert report.changed
    assert report.commit == series.state.repos[REPO].head.oid
    with pytest.raises(PatchWithdrawn, match=f"{REPO}/{NAME} was withdrawn: {REASON}") as caught:
        pull(ref, tmp_path / "store", endpoint=series.endpoint)
    assert caught.value.details["reason"] == REASON
    assert series.calls("/object/", "GET") == [] or seen
    good = pull(f"{REPO}/b.patch.safetensors", tmp_path / "store", endpoint=series.endpoint)
    assert good.checks.ok


def test_what_was_pinned_and_pulled_before_stays_usable(series: TestHub, tmp_path: Path) -> None:
    first = pull(f"{REPO}@v1", tmp_path / "store", endpoint=series.endpoint)
    yank(REPO, NAME, REASON, endpoint=series.endpoint)
    again = pull(f"{REPO}@{first.revision}", tmp_path / "store", endpoint="http://127.0.0.1:9")
    with pytest.raises(PatchWithdrawn):
        pull(f"{REPO}@{first.revision}", tmp_path / "other", endpoint=series.endpoint)
    assert (again.path, again.cached) == (first.path, True)


def test_the_card_says_so_until_it_is_taken_back(series: TestHub) -> None:
    before = content(series, "README.md")
    yank(REPO, "capitals", REASON, endpoint=series.endpoint)
    card = content(series, "README.md").decode()
    assert f"## `{NAME}`\n\n> **Withdrawn**: {REASON}\n\n- base" in card
    assert f"hf://{REPO}/b.patch.safetensors" in card
    assert withdrawn(series) == [REASON, None]
    assert not yank(REPO, "capitals", REASON, endpoint=series.endpoint).changed
    assert yank(REPO, "capitals", None, endpoint=series.endpoint).reason is None
    assert content(series, "README.md") == before
    assert withdrawn(series) == [None, None]


def test_a_later_push_keeps_it_and_other_content_ends_it(
    series: TestHub, patch: Path, other: Callable[..., Path]
) -> None:
    yank(REPO, NAME, REASON, endpoint=series.endpoint)
    push([patch], REPO, endpoint=series.endpoint)
    push([other("c", seed=3)], REPO, endpoint=series.endpoint)
    assert withdrawn(series) == [REASON, None, None]
    push([other("capitals", seed=4)], REPO, overwrite=True, endpoint=series.endpoint)
    assert withdrawn(series) == [None, None, None]


def test_the_file_and_other_entries_stay(series: TestHub) -> None:
    files = dict(series.state.repos[REPO].head.files)
    yank(REPO, NAME, REASON, endpoint=series.endpoint)
    now = series.state.repos[REPO].head.files
    assert {path for path in now if now[path] != files[path]} == {
        "README.md",
        "patchkit.index.json",
    }


def test_digests_name_a_patch_too(series: TestHub) -> None:
    digest = json.loads(content(series, "patchkit.index.json"))["patches"][1]["digest"]
    assert yank(REPO, digest[:15], REASON, endpoint=series.endpoint).path.startswith("b.")
    with pytest.raises(HubError, match=r"ada/caps lists no patch named 'nothing'") as caught:
        yank(REPO, "nothing", REASON, endpoint=series.endpoint)
    assert NAME in (caught.value.hint or "")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\nb", "\x1b[2J"])
def test_a_reason_is_a_sentence(series: TestHub, reason: str) -> None:
    with pytest.raises(FormatError):
        yank(REPO, NAME, reason, endpoint=series.endpoint)
    assert withdrawn(series) == [None, None]


def test_a_branch_that_moved_meanwhile(series: TestHub, other: Callable[..., Path]) -> None:
    theirs = {"notes.txt": b"theirs"}
    series.fail("/commit/", before=lambda: series.state.put(REPO, theirs, "theirs"))
    yank(REPO, NAME, REASON, endpoint=series.endpoint)
    assert content(series, "notes.txt") == b"theirs"
    assert withdrawn(series) == [REASON, None]


def test_only_the_owner_can(series: TestHub, login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    login("eve")
    with pytest.raises(AccessDenied):
        yank(REPO, NAME, REASON, endpoint=series.endpoint)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AccessDenied, match="needs a login"):
        yank(REPO, NAME, REASON, endpoint=series.endpoint)
    assert withdrawn(series) == [None, None]
