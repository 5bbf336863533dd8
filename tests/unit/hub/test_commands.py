"""`push`, `pull` and hf:// on the command line, against a real hub."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.cli.helpers import run
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"


@pytest.fixture(autouse=True)
def _workplace(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_push_says_what_it_did(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    planned = run("push", patch, REPO, "--dry-run")
    assert planned.stdout.startswith(f"Would push to {hub.endpoint}/{REPO} (public, new) in one")
    assert "2 facts would become public with this; --no-embed-facts" in planned.stderr
    assert "the card names no license; --license ID adds one" in planned.stderr
    done = run("push", patch, REPO, "--license", "mit", "--tag", "v1")
    assert done.code == 0
    assert f"pushed to {hub.endpoint}/{REPO} (public, new)" in done.stdout
    assert "2 facts are public with this" in done.stderr
    assert f"patchkit pull {REPO}" in done.stderr
    assert "license" not in done.stderr
    again = run("push", patch, REPO)
    assert f"{REPO} (public) has all of it already" in again.stdout
    assert run("push", patch, REPO, "-q").stdout == f"{hub.endpoint}/{REPO}\n"


def test_a_private_push_makes_no_fact_public(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    done = run("push", patch, REPO, "--private", "--json")
    assert done.data["public_facts"] == 0
    assert done.data["revision"] == hub.state.repos[REPO].head.oid
    assert done.data["files"][0]["path"] == NAME
    assert done.data["files"][0]["digest"] == done.data["digests"][NAME]


def test_pull_prints_the_path_and_copies_it(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    run("push", patch, REPO)
    path = Path(run("pull", REPO, "-q").stdout.strip())
    assert path.read_bytes() == patch.read_bytes()
    assert run("verify", path).code == 0
    copied = run("pull", f"hf://{REPO}@main", "--file", NAME, "-o", "copy.safetensors", "--json")
    assert (copied.data["path"], copied.data["cached"]) == ("copy.safetensors", True)
    assert Path("copy.safetensors").read_bytes() == patch.read_bytes()
    refused = run("pull", REPO, "-o", "copy.safetensors")
    assert (refused.code, refused.stdout) == (1, "")
    assert run("pull", f"{REPO}/{NAME}", "--file", NAME).code == 2


def test_a_patch_can_be_named_on_the_hub_wherever_one_is_taken(
    hub: TestHub, login: Login, patch: Path, base: Path, other: Callable[..., Path]
) -> None:
    login()
    run("push", patch, REPO)
    run("push", other("b"), "ada/more")
    assert run("inspect", f"hf://{REPO}", "-q").stdout.startswith("sha256:")
    assert run("verify", f"hf://{REPO}@main/{NAME}", "--base", base).code == 0
    applied = run("apply", base, f"hf://{REPO}", "hf://ada/more", "-o", "out", "--json")
    assert applied.code == 0
    assert len(applied.data["patches"]) == 2
    assert run("verify", "out").code == 0
    missing = run("apply", base, "hf://ada/none@v1", "-o", "out2")
    assert missing.code == 1
    assert "ada/none does not exist" in missing.stderr


def test_a_missing_login_has_an_exit_code_of_its_own(hub: TestHub, patch: Path) -> None:
    for arguments in (("push", patch, REPO), ("pull", REPO)):
        done = run(*arguments)
        assert (done.code, done.stdout) == (4, "")
        assert "hint: hf auth login" in done.stderr
    assert run("pull", REPO, "--json").data["code"] == "access_denied"


def test_wrong_bytes_from_storage(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    run("push", patch, REPO)
    hub.fail("/object/", plane="store", corrupt=True)
    done = run("pull", REPO)
    assert (done.code, done.stdout) == (1, "")
    assert "arrived damaged" in done.stderr
    assert "expected  sha256:" in done.stderr


def test_without_the_hub_pull_says_which_commit_it_uses(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    run("push", patch, REPO)
    first = run("pull", REPO, "-q")
    hub.fail("/api/models/", status=503, times=9)
    done = run("pull", REPO)
    assert done.stdout.splitlines()[0] == f"✓ {first.stdout.strip()}"
    assert f"this is commit {hub.state.repos[REPO].head.oid[:8]}, pulled before" in done.stderr


@pytest.mark.slow
def test_in_processes_of_their_own_and_the_token_nowhere(
    hub: TestHub, login: Login, patch: Path, base: Path, tmp_path: Path
) -> None:
    token = login()
    keep = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    env = {
        **keep,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def patchkit(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-m", "patchkit_cli", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False
        )
        assert token not in done.stdout + done.stderr
        return done

    pushed = patchkit("push", patch, REPO, "--license", "mit")
    assert pushed.returncode == 0, pushed.stderr
    applied = patchkit("apply", base, f"hf://{REPO}", "-o", "out", "-q")
    assert (applied.stdout, applied.returncode) == ("out\n", 0), applied.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if token.encode() in path.read_bytes()] == []
    assert {request.headers["authorization"] for request in hub.calls("^/api/")} == {
        f"Bearer {token}"
    }
