"""The workflow in the examples: its commands exist, and its steps do what they say."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from patchkit_cli.main import app
from tests.cli.helpers import make_patch
from tests.unit.models.factory import save_tiny

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "examples" / "github" / "patches.yml").read_text(encoding="utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["patches"]["steps"]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}
LINES = [
    line.strip()
    for script in SCRIPTS.values()
    for line in script.splitlines()
    if line.strip().startswith("patchkit ")
]


def test_it_may_read_and_nothing_else() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert set(WORKFLOW[True]) == {"pull_request"}  # YAML takes `on` for true
    assert not any("pull_request_target" in line for line in TEXT.splitlines())
    assert [step["with"]["persist-credentials"] for step in STEPS if "checkout" in str(step)] == [
        False
    ]


def test_nothing_of_the_pull_request_is_pasted_into_a_script() -> None:
    """What a stranger names reaches a script as a variable, never as its text."""
    assert [name for name, script in SCRIPTS.items() if "${{" in script] == []


@pytest.mark.parametrize("line", LINES)
def test_each_command_exists_with_its_options(line: str) -> None:
    words = shlex.split(line.split("||")[0])
    command: Any = typer.main.get_command(app)
    known = command.commands[words[1]]
    options = {option for parameter in known.params for option in parameter.opts}
    used = {word for word in words[2:] if word.startswith("-")}
    assert used <= options, line


def test_it_verifies_and_evaluates() -> None:
    assert {shlex.split(line)[1] for line in LINES} == {"inspect", "facts", "verify", "eval"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository in which the last commit brings a patch with an odd name."""
    save_tiny("llama2", tmp_path / "base")
    repository = tmp_path / "repository"
    repository.mkdir()
    _git(repository, "init", "-q")
    _git(repository, "commit", "-q", "--allow-empty", "-m", "before")
    _git(repository, "tag", "before")
    make_patch(tmp_path / "base").write(repository / "a $(touch owned) b.patch.safetensors")
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "a patch")
    return repository


def _git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def _run(name: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it, with `patchkit` of this tree."""
    (checkout.parent / "temp").mkdir(exist_ok=True)
    wrapper = f'patchkit() {{ "{sys.executable}" -m patchkit_cli "$@"; }}\n'
    env = {
        **os.environ, "TARGET": "before", "SIGNER": WORKFLOW["env"]["SIGNER"],
        "BASE": str(checkout.parent / "base"), "RUNNER_TEMP": str(checkout.parent / "temp"),
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", wrapper + SCRIPTS[name]],
        cwd=checkout, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_steps_run(checkout: Path) -> None:
    found = _run("Find the patches", checkout)
    assert found.returncode == 0, found.stderr
    verified = _run("Verify", checkout)
    assert verified.returncode == 0, verified.stderr
    assert "checks passed" in verified.stdout
    assert not (checkout / "owned").exists()
    _git(checkout, "rm", "-q", "--cached", ".", "-r")
    (checkout / "a $(touch owned) b.patch.safetensors").write_bytes(b"damaged")
    damaged = _run("Verify", checkout)
    assert damaged.returncode == 1
