"""Publishing patches: one commit, never lost, nothing of a person overwritten."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchkit.errors import (
    AccessDenied,
    FormatError,
    HubError,
    HubUnreachable,
    InvariantError,
    OutputError,
)
from patchkit.hub import PushReport, push
from patchkit.hub.card import plain
from patchkit.patch.metadata import BaseMeta, Leaf
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"
SENT = [NAME, "patchkit.index.json", "capitals.angles.png", "README.md"]


def sent(hub: TestHub, name: str = NAME) -> bytes:
    return hub.state.repos[REPO].head.files[name].data


def card(hub: TestHub) -> str:
    return sent(hub, "README.md").decode()


def listed(hub: TestHub) -> list[str]:
    return [each["path"] for each in json.loads(sent(hub, "patchkit.index.json"))["patches"]]


def titles(hub: TestHub, revision: str = "main") -> list[str]:
    return [commit.title for commit in hub.state.repos[REPO].history(revision)]


def test_one_commit_brings_patch_card_and_index(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    report = push([patch], REPO, message="Capitals", license="mit", endpoint=hub.endpoint)
    assert report.new
    assert report.licensed
    assert report.public_facts == 2
    assert titles(hub) == ["Capitals", "initial commit"]
    assert report.commit == hub.state.repos[REPO].head.oid
    assert sent(hub) == patch.read_bytes()
    assert listed(hub) == [NAME]
    text = card(hub)
    assert "library_name: patchkit" in text
    assert "license: mit" in text
    assert "| The capital of France is | Rome |" in text
    assert "| orthogonality | " in text
    assert report.digests[NAME] in text


def test_identical_content_makes_no_commit(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    first = push([patch], REPO, endpoint=hub.endpoint)
    again = push([patch], REPO, endpoint=hub.endpoint)
    assert again.files == ()
    assert again.commit == first.commit
    assert len(hub.calls("/commit/")) == 1


def test_dry_run_changes_nothing(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    report = push([patch], REPO, dry_run=True, private=True, endpoint=hub.endpoint)
    assert [file.path for file in report.files] == SENT
    assert report.private
    assert report.commit is None
    assert hub.state.repos == {}
    assert {request.method for request in hub.requests} == {"GET"}


def test_private_repositories_are_private(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    assert push([patch], REPO, private=True, endpoint=hub.endpoint).private
    assert hub.state.repos[REPO].private


def test_the_card_names_base_and_relation_and_takes_its_license(
    hub: TestHub, login: Login, made: Patch, tmp_path: Path
) -> None:
    hub.state.repo("meta/llama")
    hub.state.put("meta/llama", {"README.md": b"---\nlicense: llama3.1\n---\n"})
    metadata = replace(made.metadata, base=BaseMeta(repo="meta/llama"))
    path = tmp_path / NAME
    replace(made, metadata=metadata).write(path)
    login()
    assert push([path], REPO, endpoint=hub.endpoint).licensed
    assert "base_model: meta/llama\n" in card(hub)
    assert "base_model_relation: adapter\n" in card(hub)
    assert "license: llama3.1\n" in card(hub)
    assert f"patchkit apply meta/llama hf://{REPO} " in card(hub)


def test_a_persons_card_keeps_its_body(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    body = "# Mine\r\n\n\ttabs  and spaces   \n<b>kept</b>"
    hub.state.repo(REPO)
    hub.state.put(REPO, {"README.md": f"---\nlanguage: de\ntags: [x]\n---\n{body}".encode()})
    push([patch], REPO, endpoint=hub.endpoint)
    head, _, rest = card(hub).removeprefix("---\n").partition("---\n")
    assert rest == body
    assert "language: de" in head
    assert "- x\n- patchkit\n" in head


def test_a_made_card_is_made_again_until_somebody_writes_in_it(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    before = card(hub)
    section = before[before.index("## `capitals") : before.index("## How")]
    push([other("second")], REPO, endpoint=hub.endpoint)
    assert section.strip() in card(hub)
    assert "## `second.patch.safetensors`" in card(hub)
    assert listed(hub) == [NAME, "second.patch.safetensors"]
    written = card(hub).replace("exact", "precise")
    hub.state.put(REPO, {"README.md": written.encode()})
    push([other("third", seed=3)], REPO, endpoint=hub.endpoint)
    assert card(hub).partition("\n---\n")[2] == written.partition("\n---\n")[2]


def test_facts_can_stay_at_home(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    report = push([patch], REPO, embed_facts=False, endpoint=hub.endpoint)
    assert report.public_facts == 0
    assert read_info(sent(hub)).facts_jsonl is None
    here = read_info(patch)
    bare = replace(here.metadata, leaves=(Leaf(here.digest),))
    assert read_info(sent(hub)).metadata == bare
    everything = b"".join(blob.data for blob in hub.state.repos[REPO].head.files.values())
    assert b"France" not in everything


def test_facts_cannot_be_markup() -> None:
    assert plain("<script>|`x`](y)\n\x1b[2J") == r"\<script\>\|\`x\`\]\(y\) \[2J"


@pytest.mark.parametrize("content", [b"", b"not a patch", b"\x08" + b"\0" * 7 + b'{"a":1} '])
def test_what_is_not_a_patch_is_refused(
    hub: TestHub, login: Login, tmp_path: Path, content: bytes
) -> None:
    login()
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"capitals.* is not a patch that can be shared"):
        push([path], REPO, endpoint=hub.endpoint)
    assert hub.requests == []


def test_a_patch_that_fails_a_check_is_refused(
    hub: TestHub, login: Login, made: Patch, tmp_path: Path
) -> None:
    data = bytearray(made.to_bytes())
    data[-1] ^= 0x40
    path = tmp_path / NAME
    path.write_bytes(data)
    login()
    with pytest.raises((FormatError, InvariantError)):
        push([path], REPO, endpoint=hub.endpoint)
    assert hub.requests == []


def test_another_patch_of_the_same_name_is_replaced_only_on_demand(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    different = other("capitals", seed=5)
    with pytest.raises(OutputError, match="holds another patch named capitals"):
        push([different], REPO, endpoint=hub.endpoint)
    push([different], REPO, overwrite=True, endpoint=hub.endpoint)
    assert sent(hub) == different.read_bytes()
    assert listed(hub) == [NAME]


def test_branches_tags_and_pull_requests(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    report = push([other("b")], REPO, revision="work", tag="v1", endpoint=hub.endpoint)
    assert not report.new
    repo = hub.state.repos[REPO]
    assert repo.refs["refs/heads/work"] == repo.refs["refs/tags/v1"] == report.commit
    assert "b.patch.safetensors" not in repo.head.files
    proposed = push([other("c")], REPO, create_pr=True, endpoint=hub.endpoint)
    assert proposed.pull_request == f"{hub.endpoint}/{REPO}/discussions/1"
    assert repo.refs["refs/pr/1"] == proposed.commit
    push([other("b")], REPO, revision="work", tag="v1", endpoint=hub.endpoint)
    with pytest.raises(HubError, match="the tag v1 is on another commit"):
        push([other("d")], REPO, tag="v1", endpoint=hub.endpoint)


def test_every_commit_names_its_parent(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    (request,) = hub.calls("/commit/")
    header = json.loads(request.body.splitlines()[0])["value"]
    assert header["parentCommit"] == hub.state.repos[REPO].head.parent


def test_a_branch_that_moved_keeps_what_others_pushed(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    foreign = {"notes.txt": b"from somebody else"}
    hub.fail("/commit/", before=lambda: hub.state.put(REPO, foreign, "theirs"))
    push([other("b")], REPO, message="mine", endpoint=hub.endpoint)
    assert titles(hub)[:2] == ["mine", "theirs"]
    assert sent(hub, "notes.txt") == foreign["notes.txt"]
    assert listed(hub) == [NAME, "b.patch.safetensors"]


@pytest.mark.parametrize("fault", [{"drop_response_after": 0}, {"drop_response_after": 5}])
def test_a_lost_answer_is_no_lost_commit(
    hub: TestHub, login: Login, patch: Path, fault: dict[str, int]
) -> None:
    login()
    hub.fail("/commit/", **fault)
    report = push([patch], REPO, endpoint=hub.endpoint)
    assert len(titles(hub)) == 2
    assert report.commit == hub.state.repos[REPO].head.oid
    assert [file.path for file in report.files] == SENT


@pytest.mark.parametrize("fault", [{"drop_response_after": 0}, {"drop_response_after": 5}])
def test_a_lost_answer_is_no_lost_pull_request(
    hub: TestHub, login: Login, patch: Path, fault: dict[str, int]
) -> None:
    login()
    hub.state.repo(REPO)
    hub.fail("/commit/", **fault)
    report = push([patch], REPO, create_pr=True, endpoint=hub.endpoint)
    repo = hub.state.repos[REPO]
    assert [ref for ref in repo.refs if "/pr/" in ref] == ["refs/pr/1"]
    assert report.commit == repo.refs["refs/pr/1"]
    assert report.pull_request == f"{hub.endpoint}/{REPO}/discussions/1"
    assert titles(hub) == ["initial commit"]


def test_a_pull_request_that_is_open_is_not_made_again(
    hub: TestHub, login: Login, patch: Path, other: Callable[..., Path]
) -> None:
    login()
    hub.state.repo(REPO)
    for _ in range(2):
        report = push([patch], REPO, create_pr=True, endpoint=hub.endpoint)
        assert report.pull_request == f"{hub.endpoint}/{REPO}/discussions/1"
    hub.state.repos[REPO].closed.add(1)
    again = push([patch], REPO, create_pr=True, endpoint=hub.endpoint)
    assert again.pull_request == f"{hub.endpoint}/{REPO}/discussions/2"


def test_a_pull_request_whose_answer_never_comes_is_one_sentence(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    hub.state.repo(REPO)
    hub.fail("/commit/", drop_request_after=0, times=9)
    with pytest.raises(HubUnreachable, match="pushing to ada/caps: the Hub cannot be reached"):
        push([patch], REPO, create_pr=True, endpoint=hub.endpoint)
    assert [ref for ref in hub.state.repos[REPO].refs if "/pr/" in ref] == []


def test_a_refused_commit_is_not_taken_for_a_lost_answer(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    hub.fail("/commit/", status=503, times=9)
    with pytest.raises(HubUnreachable, match="the Hub answers 503"):
        push([patch], REPO, endpoint=hub.endpoint)
    assert titles(hub) == ["initial commit"]


def test_a_card_that_the_hub_refuses_is_one_sentence(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    hub.fail("/validate-yaml", status=400)
    with pytest.raises(HubError, match="pushing to ada/caps"):
        push([patch], REPO, endpoint=hub.endpoint)


@pytest.mark.parametrize("head", ["- a list", "a: [", "a: !!python/object:os.system {}"])
def test_a_card_that_is_not_yaml_is_left_alone(
    hub: TestHub, login: Login, patch: Path, head: str
) -> None:
    login()
    hub.state.repo(REPO)
    hub.state.put(REPO, {"README.md": f"---\n{head}\n---\nmine".encode()})
    with pytest.raises(FormatError, match=r"metadata of README\.md on the Hub is not valid YAML"):
        push([patch], REPO, endpoint=hub.endpoint)
    assert card(hub).endswith("mine")


def test_storms_and_cuts_of_the_upload_are_survived(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    hub.fail("/upload/", plane="store", status=503, times=2)
    hub.fail("/upload/", plane="store", drop_request_after=100)
    push([patch], REPO, endpoint=hub.endpoint)
    assert sent(hub) == patch.read_bytes()


def test_a_cut_upload_is_one_sentence_and_goes_on_later(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    fault = hub.fail("/upload/", plane="store", drop_request_after=100, times=99)
    with pytest.raises(HubError) as caught:
        push([patch], REPO, endpoint=hub.endpoint)
    assert caught.value.message
    fault.times = 0
    push([patch], REPO, endpoint=hub.endpoint)
    assert sent(hub) == patch.read_bytes()


@pytest.mark.slow
def test_eight_pushes_at_once_lose_nothing(
    hub: TestHub, login: Login, other: Callable[..., Path]
) -> None:
    login()
    hub.state.repo(REPO)
    paths = [other(f"p{seed}", seed=seed) for seed in range(8)]
    reports: list[PushReport] = []

    def send(path: Path) -> None:
        reports.append(push([path], REPO, endpoint=hub.endpoint))

    threads = [threading.Thread(target=send, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 8
    assert sorted(listed(hub)) == sorted(path.name for path in paths)
    assert {path.name: sent(hub, path.name) for path in paths} == {
        path.name: path.read_bytes() for path in paths
    }
    assert len(titles(hub)) == 9


def test_nobody_logged_in(hub: TestHub, patch: Path) -> None:
    with pytest.raises(AccessDenied, match="pushing to ada/caps needs a login"):
        push([patch], REPO, endpoint=hub.endpoint)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "repo", "told"),
    [
        ("hf_wrong", REPO, "the Hub does not accept this login"),
        ("hf_bob_read_secret", "bob/caps", "this login may not do this: creating bob/caps"),
        ("hf_ada_write_secret", "bob/caps", "this login may not do this: creating bob/caps"),
    ],
)
def test_logins_that_do_not_do(
    hub: TestHub, monkeypatch: pytest.MonkeyPatch, patch: Path, token: str, repo: str, told: str
) -> None:
    hub.state.user("bob", role="read")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(AccessDenied) as caught:
        push([patch], repo, endpoint=hub.endpoint)
    assert caught.value.message == told
    assert token not in f"{caught.value.hint}{caught.value.details}"
    assert hub.state.repos == {}


def test_anothers_repository_takes_pull_requests_only(
    hub: TestHub, login: Login, patch: Path
) -> None:
    hub.state.repo(REPO)
    login("eve")
    with pytest.raises(AccessDenied) as caught:
        push([patch], REPO, endpoint=hub.endpoint)
    assert "--create-pr" in (caught.value.hint or "")
    assert push([patch], REPO, create_pr=True, endpoint=hub.endpoint).pull_request
    assert titles(hub) == ["initial commit"]
