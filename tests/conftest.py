"""What every test shares: no network, one thread, fixed examples, optional data."""

import socket
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("patchkit", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("patchkit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        default=str(ROOT / ".." / "shared" / "data"),
        help="folder with the published data sets (default: ../shared/data beside the repository)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where there is no CUDA device; torch is loaded only if one is collected."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def data_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of published data sets, or a skip that says what is missing."""
    folder = Path(pytestconfig.getoption("--data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder} (name their folder with --data)")
    return folder.resolve()


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    return str(address[0]) in {"localhost", "127.0.0.1", "::1", ""}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if not _is_local(address):
            raise AssertionError(f"a test tried to connect to {address!r}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch, where a test module loaded it, on one thread: sums then have one order."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
