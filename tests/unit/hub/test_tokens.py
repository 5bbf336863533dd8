"""A login's token is in no output, no log and no file, and on no request but the Hub's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.cli.helpers import run
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "refused": {"pattern": "/api/", "status": 403, "times": 99},
    "not accepted": {"pattern": "/api/", "status": 401, "times": 99},
    "storm": {"pattern": "/api/", "status": 503, "times": 99},
    "too many": {"pattern": "/api/", "status": 429, "times": 99},
    "cut": {"pattern": "/commit/|/resolve/", "drop_response_after": 0, "times": 99},
    "bad answer": {"pattern": "/api/models/", "status": 200, "times": 99},
    "storage refuses": {"pattern": ".", "plane": "store", "status": 403, "times": 99},
    "storage lies": {"pattern": ".", "plane": "store", "corrupt": True, "times": 99},
}


@pytest.fixture(autouse=True)
def _workplace(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATCHKIT_DEBUG", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("mode", [(), ("--json",)], ids=["human", "json"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_the_token_stays_unsaid(
    hub: TestHub,
    login: Login,
    patch: Path,
    tmp_path: Path,
    fault: str,
    mode: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = login()
    if fault not in ("none", "storage refuses"):
        assert run("push", patch, REPO).code == 0
    hub.requests.clear()
    if FAULTS[fault]:
        hub.fail(**FAULTS[fault])
    with caplog.at_level(logging.DEBUG):
        ran = [run("push", patch, REPO, "--tag", "v1", *mode), run("pull", REPO, *mode)]
    said = "".join(each.stdout + each.stderr for each in ran) + caplog.text
    assert token not in said
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if token.encode() in path.read_bytes()] == []
    sent = [request for request in hub.requests if token in str(request.headers)]
    assert {request.plane for request in sent} == {"hub"}
    assert [request for request in hub.requests if token in request.path + str(request.query)] == []


@pytest.mark.parametrize("command", ["push", "pull", "search", "log", "update"])
def test_no_command_takes_a_token(command: str) -> None:
    text = run(command, "--help").stdout
    assert "token" not in text.lower()
