"""A hub and a process from which commands are started, on either way of the client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hubcas import Cas
from tests.hubstate import State
from tests.testhub import TestHub
from tests.unit.hub.processes.running import NO_XET, REPO, Running, Start

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="package")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestHub, Any]]:
    """A hub, and the process from which commands are started."""
    home = tmp_path_factory.mktemp("home")
    with TestHub(xet=NO_XET is None) as hub:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "PATCHKIT_NO_PROGRESS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
        }
        with subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("impatient.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            yield hub, process
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def hub(station: tuple[TestHub, Any]) -> Iterator[TestHub]:
    """The hub as if it had just begun; ada may write, bob has a repository."""
    hub = station[0]
    hub.state, hub.cas, hub.requests, hub.faults = State(), Cas(), [], []
    hub.errors, hub.leaks = [], []
    hub.state.user("ada")
    hub.state.user("ada", role="read")
    hub.state.repo("bob/caps")
    yield hub
    hub.faults = []
    assert hub.errors == []
    assert hub.leaks == []


@pytest.fixture
def way() -> str:
    """How large files travel where a test does not say: "lfs" or "xet"."""
    return "lfs"


@pytest.fixture
def start(station: tuple[TestHub, Any], tmp_path: Path, hub: TestHub, way: str) -> Start:
    process, begun = station[1], iter(range(1000))

    def begin(
        *arguments: object,
        token: str | None = "hf_ada_write_secret",
        disk: int | None = None,
        endpoint: str | None = None,
    ) -> Running:
        folder = tmp_path / f"run{next(begun)}"
        folder.mkdir()
        environment = {
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HF_XET_CACHE": str(tmp_path / "xet"),
            "HF_TOKEN": token or "",
        }
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "folder": str(folder),
            "disk": disk,
            "endpoint": endpoint,
            "xet": way == "xet",
        }
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return Running(int(process.stdout.readline()), folder)

    return begin


@pytest.fixture
def pushed(hub: TestHub, start: Start, patch: Path) -> TestHub:
    """The hub with the patch in ada's repository."""
    assert start("push", patch, REPO, "--license", "mit").code == 0
    hub.requests.clear()
    return hub
