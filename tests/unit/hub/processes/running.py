"""Commands in processes of their own, and what is said of how they end."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testhub import HOSTS

REPO = "ada/caps"
NAME = "capitals.patch.safetensors"


def _no_xet() -> str | None:
    """Why the chunked way cannot be tested here; None where it can."""
    if importlib.util.find_spec("hf_xet") is None:
        return "hf-xet is not installed"
    try:
        with socket.socket() as probe:
            probe.bind((HOSTS["cas"], 0))
    except OSError:
        return f"{HOSTS['cas']} is no address of this machine"
    return None


NO_XET = _no_xet()
xet_only = pytest.mark.skipif(NO_XET is not None, reason=NO_XET or "")
both_ways = pytest.mark.parametrize("way", ["lfs", pytest.param("xet", marks=xet_only)])
"""The two ways in which the client brings large files to the Hub and back."""
SENDING, FETCHING = "^/(upload|grant)/", "^/(object|xorb)/"
"""What it asks of the storage host on either."""


@dataclass
class Running:
    """One command in a process of its own."""

    process: int
    folder: Path

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        while _alive(self.process):
            time.sleep(0.01)

    @property
    def code(self) -> int:
        """The exit code, waited for."""
        end = time.monotonic() + 60
        while not (self.folder / "code").is_file():
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)
        return int((self.folder / "code").read_text())

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()


Start = Callable[..., Running]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def kept(tmp_path: Path) -> list[str]:
    """What a pull left behind."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def fails(done: Running, code: int, sentence: str) -> None:
    assert (done.code, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "_secret" not in done.stderr
