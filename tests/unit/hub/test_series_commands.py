"""`search`, `log` and `yank` on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from patchkit.hub import push
from patchkit.patch.reader import read_info
from tests.cli.helpers import run
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"


@pytest.fixture(autouse=True)
def pushed(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    login()
    push([patch], REPO, message="Capitals", endpoint=hub.endpoint)


def test_search(hub: TestHub, other: Callable[..., Path]) -> None:
    push([other("b")], "ada/more", private=True, endpoint=hub.endpoint)
    done = run("search", "--author", "ada")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["REPOSITORY", "UPDATED", "BASE", "RELATION", "PATCHES", "FACTS"]
    assert [row[0] for row in rows[1:]] == ["ada/more", REPO]
    assert "(private)" in rows[1]
    assert rows[2][-2:] == ["1", "2"]
    assert "hint: patchkit pull ada/more" in done.stderr
    assert run("search", "-q").stdout == f"ada/more\n{REPO}\n"
    data = run("search", "cap", "--json").data["results"]
    assert [(each["repo"], each["facts"], each["bases"]) for each in data] == [(REPO, 2, [])]
    assert run("search", "nothing").stdout == "no patches found\n"
    assert run("search", "--base", "meta/llama", "-q").stdout == ""


def test_search_takes_a_base_as_people_name_it(hub: TestHub, base: Path) -> None:
    for ref in ("atlas", "meta/llama@main", "hf://meta/llama"):
        assert run("search", "--base", ref).code == 0
    tags = [call.many["filter"] for call in hub.calls("^/api/models$")]
    assert tags[-3:] == [["patchkit", tag] for tag in (
        "patchkit-atlas", "base_model:adapter:meta/llama", "base_model:adapter:meta/llama",
    )]  # fmt: skip
    refused = run("search", "--base", base)
    assert refused.code == 1
    assert "name it: --base org/name" in refused.stderr


def test_log(hub: TestHub, patch: Path) -> None:
    digest = read_info(patch).digest
    done = run("log", REPO)
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"{hub.state.repos[REPO].head.oid[:8]}  Capitals")
    assert lines[1] == f"  added      {NAME} {digest[:15]}…"
    commits = run("log", REPO, "--json").data["commits"]
    assert [commit["title"] for commit in commits] == ["Capitals", "initial commit"]
    assert commits[0]["changes"][0]["digest"] == digest
    assert commits[0]["when"].startswith("2026-01-01T")
    assert run("log", REPO, "--limit", "1", "-q").stdout.strip() == commits[0]["commit"]


def test_a_title_cannot_write_on_the_terminal(hub: TestHub) -> None:
    hub.state.put(REPO, {"notes.txt": b"x"}, "title\x1b[2J\nsecond line")
    assert "\x1b" not in run("log", REPO).stdout


def test_yank_and_pull(hub: TestHub, patch: Path) -> None:
    done = run("yank", REPO, "capitals", "--reason", "line 1 is wrong")
    assert done.stdout.startswith(f"✓ {REPO}/{NAME} is withdrawn\n")
    digest = read_info(patch).digest
    assert f"patchkit revert FOLDER --only {digest[7:15]}" in done.stderr
    refused = run("pull", REPO)
    assert (refused.code, refused.stdout) == (1, "")
    assert f"{REPO}/{NAME} was withdrawn: line 1 is wrong" in refused.stderr
    error = run("pull", REPO, "--json").data
    assert error["code"] == "patch_withdrawn"
    assert error["details"] == {"digest": digest, "reason": "line 1 is wrong"}
    assert "withdrawn  " in run("log", REPO).stdout
    again = run("yank", REPO, "capitals", "--reason", "line 1 is wrong")
    assert "is withdrawn, as it was before" in again.stdout
    undone = run("yank", REPO, "capitals", "--undo", "--json")
    assert (undone.data["reason"], undone.data["changed"]) == (None, True)
    assert run("pull", REPO).code == 0


def test_a_withdrawal_can_be_proposed(hub: TestHub) -> None:
    hub.state.user("eve")
    done = run("yank", REPO, NAME, "--reason", "wrong", "--create-pr", "-q")
    assert done.stdout == f"{hub.endpoint}/{REPO}/discussions/1\n"
    assert run("pull", REPO).code == 0


def test_yank_needs_a_reason_or_undo() -> None:
    for arguments in ((), ("--reason", "x", "--undo")):
        assert run("yank", REPO, NAME, *arguments).code == 2
