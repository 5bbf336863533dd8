"""One fixture that runs a command in every mode and compares what comes out."""

import json as json_module
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from typer.testing import CliRunner

from patchkit_cli.main import app

_VOLATILE = (
    (re.compile(r"\b\d+(\.\d)?s\b"), "0.0s"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<64 hex>"),
    (re.compile(r"\b[0-9a-f]{8}…"), "<8 hex>…"),
)


@dataclass(frozen=True)
class Ran:
    """What one run left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        """The object printed with `--json`, wherever it went."""
        lines = [line for line in (self.stdout + self.stderr).splitlines() if line[:1] == "{"]
        assert len(lines) == 1, self
        data = json_module.loads(lines[0])
        assert isinstance(data, dict)
        return data


def run(*args: str | Path, env: Mapping[str, str] | None = None) -> Ran:
    """Run `patchkit` with these arguments, 80 columns wide."""
    clean = {"COLUMNS": "80", "NO_COLOR": "1", "PATCHKIT_NO_PROGRESS": "1"}
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={**clean, **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def steady(text: str) -> str:
    """`text` with times and digests replaced, trailing space and outer blank lines dropped."""
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder with a cache and temporary files of its own."""
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("PATCHKIT_DEBUG", raising=False)
    yield


Check = Callable[..., Ran]


@pytest.fixture
def check() -> Check:
    """Run a command as a person, a program and a script would, and compare.

    `human` and `stderr` are the texts in human mode, `json` a part of the object, `quiet` the
    whole of stdout with `-q`. `before` runs before each of the three. Returns the `--json` run.
    """

    def compare(
        args: Sequence[str | Path],
        *,
        human: str = "",
        stderr: str = "",
        json: Mapping[str, object],
        quiet: str = "",
        code: int = 0,
        before: Callable[[], object] = lambda: None,
    ) -> Ran:
        before()
        ran = run(*args)
        assert (steady(ran.stdout), ran.code) == (steady(dedent(human)), code), ran.stderr
        assert steady(ran.stderr) == steady(dedent(stderr))
        before()
        ran = run(*args, "-q")
        assert (steady(ran.stdout), ran.code) == (steady(dedent(quiet)), code), ran.stderr
        before()
        ran = run(*args, "--json")
        assert ran.code == code
        assert len(ran.stdout.splitlines()) <= 1
        assert {key: ran.data.get(key) for key in json} == dict(json)
        return ran

    return compare
