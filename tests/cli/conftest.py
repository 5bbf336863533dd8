"""One fixture that runs a command in every mode and compares what comes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from patchkit.editing.recipe import Recipe
from patchkit.patch.patch import Patch
from patchkit_cli import edit
from tests.cli.helpers import Check, Ran, make_patch, run, steady
from tests.unit.models.factory import save_tiny


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with a cache and temporary files of its own."""
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("PATCHKIT_DEBUG", raising=False)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in three shards, to be read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny("llama2", folder, max_shard_size=60_000)
    return folder


@pytest.fixture(scope="session")
def made(base: Path) -> Patch:
    """A patch of one rotation of rank 2 for `base`, carrying FACTS."""
    return make_patch(base)


@pytest.fixture
def patch(made: Patch) -> Path:
    """`made` as a file in the working folder."""
    made.write("my.patch.safetensors")
    return Path("my.patch.safetensors")


@pytest.fixture
def fast_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `edit` take two steps on little preserved text."""
    make = edit._recipe

    def recipe(*given: Any) -> Recipe:
        made = make(*given)
        options = made.options
        if hasattr(options, "host_options"):
            options = replace(options, host_options=replace(options.host_options, steps=2))
        else:
            options = replace(options, steps=2)
        return replace(made, options=options, contexts=1, corpus_rows=8, corpus_length=8)

    monkeypatch.setattr(edit, "_recipe", recipe)


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
