"""Finding repositories of patches, and their histories."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchkit.errors import AccessDenied, HubError, HubUnreachable
from patchkit.hub import log, push, search, yank
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
NAME = "capitals.patch.safetensors"


@pytest.fixture
def shelf(hub: TestHub, login: Login, made: Patch, tmp_path: Path) -> TestHub:
    """Three repositories of patches, pushed in this order, and a model that is none."""
    token = login()
    hub.state.user("bob")
    for repo, base in (("ada/one", "meta/a"), ("ada/two", "atlas"), ("ada/three", "meta/b")):
        metadata = replace(made.metadata, base=BaseMeta(repo=base))
        path = tmp_path / repo.split("/")[1] / NAME
        path.parent.mkdir()
        replace(made, metadata=metadata).write(path)
        push([path], repo, license="mit", endpoint=hub.endpoint)
    hub.state.repo("bob/other")
    assert token
    return hub


def names(hub: TestHub, *given: str, **options: str) -> list[str]:
    return [each.repo for each in search(*given, endpoint=hub.endpoint, **options)]


def test_the_newest_come_first_with_relation_and_facts(shelf: TestHub) -> None:
    found = search(endpoint=shelf.endpoint)
    assert [each.repo for each in found] == ["ada/three", "ada/two", "ada/one"]
    assert found[0].bases == ("meta/b",)
    assert found[0].relation == "adapter"
    assert (found[0].patches, found[0].facts, found[0].license) == (1, 2, "mit")
    assert found[0].revision == shelf.state.repos["ada/three"].head.oid
    assert (found[1].bases, found[1].relation, found[1].facts) == ((), None, 2)
    dates = [each.updated for each in found if each.updated]
    assert dates == sorted(dates, reverse=True)


def test_text_author_and_base_narrow_it(shelf: TestHub) -> None:
    assert names(shelf, "thr") == ["ada/three"]
    assert names(shelf, base="meta/a") == ["ada/one"]
    assert names(shelf, base="atlas") == ["ada/two"]
    assert names(shelf, base="meta/none") == []
    assert names(shelf, author="bob") == []
    assert len(search(author="ada", limit=2, endpoint=shelf.endpoint)) == 2


def test_private_repositories_are_their_owners(
    shelf: TestHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.state.repos["ada/one"].private = True
    assert "ada/one" in names(shelf)
    monkeypatch.delenv("HF_TOKEN")
    assert "ada/one" not in names(shelf)


def test_withdrawn_patches_do_not_count(shelf: TestHub) -> None:
    yank("ada/one", NAME, "wrong", endpoint=shelf.endpoint)
    (found,) = search("one", endpoint=shelf.endpoint)
    assert (found.patches, found.facts) == (0, 0)


@pytest.mark.parametrize("facts", ["-3", "'many'", "true", "[1]"])
def test_a_card_can_say_anything(shelf: TestHub, facts: str) -> None:
    card = f"---\ntags: [patchkit]\npatchkit: {{facts: {facts}}}\nbase_model: [1, x/y]\n---\n"
    shelf.state.put("bob/other", {"README.md": card.encode()})
    (found,) = search("other", endpoint=shelf.endpoint)
    assert (found.facts, found.patches, found.bases) == (None, None, ("x/y",))


def test_without_the_hub(shelf: TestHub) -> None:
    with pytest.raises(HubUnreachable, match="the Hub cannot be reached"):
        search(endpoint="http://127.0.0.1:9")
    with pytest.raises(HubUnreachable, match="looking at ada/one: the Hub cannot be reached"):
        log("ada/one", endpoint="http://127.0.0.1:9")
    shelf.fail("/api/models$", status=503, times=9)
    with pytest.raises(HubUnreachable, match="the Hub answers 503"):
        search(endpoint=shelf.endpoint)


def test_a_log_says_what_became_of_each_patch(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    repo = "ada/caps"
    push([patch], repo, message="First", endpoint=hub.endpoint)
    second = other("b")
    push([second], repo, message="Second", endpoint=hub.endpoint)
    yank(repo, "b", "wrong city", endpoint=hub.endpoint)
    yank(repo, "b", None, endpoint=hub.endpoint)
    changed = other("capitals", seed=8)
    push([changed], repo, overwrite=True, message="Better", endpoint=hub.endpoint)
    hub.state.put(repo, {"notes.txt": b"x"}, "Notes")
    logged = log(repo, endpoint=hub.endpoint)
    told = [
        (each.title, [(c.kind, c.path, c.digest, c.reason) for c in each.changes])
        for each in logged
    ]
    b, b_digest = "b.patch.safetensors", read_info(second).digest
    assert told == [
        ("Notes", []),
        ("Better", [("replaced", NAME, read_info(changed).digest, None)]),
        (f"Reinstate {b}", [("reinstated", b, b_digest, None)]),
        (f"Withdraw {b}: wrong city", [("withdrawn", b, b_digest, "wrong city")]),
        ("Second", [("added", b, b_digest, None)]),
        ("First", [("added", NAME, log(repo, endpoint=hub.endpoint)[-2].changes[0].digest, None)]),
        ("initial commit", []),
    ]
    assert logged[0].commit == hub.state.repos[repo].head.oid
    newest = log(repo, limit=2, endpoint=hub.endpoint)
    assert newest == logged[:2]


def test_a_log_of_what_is_not_there(hub: TestHub, login: Login) -> None:
    with pytest.raises(AccessDenied, match="ada/none does not exist or needs a login"):
        log("ada/none", endpoint=hub.endpoint)
    login()
    with pytest.raises(HubError, match="ada/none does not exist, or this login may not see it"):
        log("ada/none", endpoint=hub.endpoint)
    hub.state.repo("ada/empty")
    assert [each.changes for each in log("ada/empty", endpoint=hub.endpoint)] == [()]
