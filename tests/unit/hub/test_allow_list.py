"""Of a repository only patches, signatures and the index are fetched, under plain names."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchkit.errors import HubError
from patchkit.hub import pull, push
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"
OTHERS = (
    "model.bin", "weights.pkl", "model.pt", "data.npz", "setup.py", "modeling_evil.py", "run.sh",
    "config.json", "model.safetensors", "tokenizer.json", "adapter_model.safetensors",
)  # fmt: skip


def test_other_files_are_left_where_they_are(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    hub.state.put(REPO, dict.fromkeys((*OTHERS, f"{NAME}.sig"), b"hostile"))
    hub.requests.clear()
    report = pull(REPO, tmp_path / "store", endpoint=hub.endpoint)
    fetched = {request.path.rsplit("/", 1)[1] for request in hub.calls("/resolve/")}
    assert fetched == {NAME, f"{NAME}.sig", "patchkit.index.json"}
    assert {path.name for path in report.path.parent.iterdir()} & set(OTHERS) == set()


@pytest.mark.parametrize("name", OTHERS)
def test_naming_another_file_does_not_fetch_it(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path, name: str
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    hub.state.put(REPO, {name: b"hostile"})
    with pytest.raises(HubError, match="is not a patch"):
        pull(f"{REPO}@main/{name}", tmp_path / "store", endpoint=hub.endpoint)
    assert hub.calls(f"/resolve/.*{name}") == []


@pytest.mark.parametrize(
    "path",
    [
        "../../owned.patch.safetensors",
        "/owned.patch.safetensors",
        ".config/owned.patch.safetensors",
        "a/../../owned.patch.safetensors",
        "a\\..\\owned.patch.safetensors",
        "~/owned.patch.safetensors",
        "a\nb.patch.safetensors",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path, path: str
) -> None:
    login()
    hub.state.repo(REPO)
    hub.state.put(REPO, {path: patch.read_bytes()})
    with pytest.raises(HubError, match="is not a file name that patchkit reads or writes"):
        pull(REPO, tmp_path / "deep" / "store", endpoint=hub.endpoint)
    assert [found for found in tmp_path.rglob("*owned*")] == []
    assert hub.calls("/resolve/") == []
