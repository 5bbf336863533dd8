"""A running hub, and a client that sees nothing of this machine's own login and caches."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from patchkit.patch.patch import Patch
from tests.cli.helpers import make_patch
from tests.testhub import TestHub
from tests.unit.models.factory import save_tiny


@pytest.fixture
def hub() -> Iterator[TestHub]:
    """A hub where ada may write; it made no error and no token reached its storage."""
    with TestHub() as running:
        running.state.user("ada")
        yield running
    assert running.errors == []
    assert running.leaks == []


@pytest.fixture(autouse=True)
def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in, nothing is cached, retries do not wait."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)


Login = Callable[..., str]


@pytest.fixture
def login(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Log in as somebody; the user is added first where needed."""

    def log_in(name: str = "ada", role: str = "write") -> str:
        token = hub.state.user(name, role=role)
        monkeypatch.setenv("HF_TOKEN", token)
        return token

    return log_in


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, to be read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny("llama2", folder)
    return folder


@pytest.fixture(scope="session")
def made(base: Path) -> Patch:
    """A patch of one rotation for `base`, carrying two facts."""
    return make_patch(base)


@pytest.fixture
def patch(made: Patch, tmp_path: Path) -> Path:
    """`made` as a file."""
    path = tmp_path / "capitals.patch.safetensors"
    made.write(path)
    return path


@pytest.fixture
def other(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Another patch under a name of its own."""

    def write(name: str, seed: int = 1, **options: Any) -> Path:
        path = tmp_path / f"{name}.patch.safetensors"
        make_patch(base, seed=seed, **options).write(path)
        return path

    return write
