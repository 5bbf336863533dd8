"""Every command explains itself, with examples that can be pasted."""

import ast
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from patchkit_cli import cache
from patchkit_cli.errors import EXIT_MEANINGS
from patchkit_cli.main import GROUPS, SESSION
from tests.cli.helpers import run

Command = tuple[str, Callable[..., None], tuple[str, ...]]
COMMANDS: list[Command] = [
    *(command for commands in GROUPS.values() for command in commands),
    *((f"cache {name}", function, examples) for name, function, examples in cache.COMMANDS),
]
names = pytest.mark.parametrize("command", COMMANDS, ids=[name for name, *_ in COMMANDS])


@names
def test_help_fits_and_shows_its_examples(command: Command) -> None:
    name, _, examples = command
    ran = run(*name.split(), "--help")
    assert ran.code == 0
    shown = " ".join(ran.stdout.split())
    assert "Examples" in shown
    for example in examples:
        assert f"$ {example}" in shown
    assert max(map(len, ran.stdout.splitlines())) <= 80


@names
def test_the_first_line_is_short(command: Command) -> None:
    doc = inspect.getdoc(command[1])
    assert doc
    assert len(doc.splitlines()[0]) <= 60


@names
def test_two_examples_that_name_the_command(command: Command) -> None:
    name, _, examples = command
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example)
        assert words[: len(name.split()) + 1] == ["patchkit", *name.split()]
        assert len(example) <= 74  # so that no terminal of 80 columns breaks it


@names
def test_the_options_of_an_example_exist(command: Command) -> None:
    name, _, examples = command
    help_text = run(*name.split(), "--help").stdout.split()
    for example in examples:
        for word in shlex.split(example):
            assert not word.startswith("-") or word in help_text, word


@names
def test_every_command_has_both_modes_and_refuses_them_together(command: Command) -> None:
    name, function, _ = command
    assert {"json", "quiet"} <= inspect.signature(function).parameters.keys()
    needed = {
        "apply": "x x",
        "diff": "x x",
        "extract": "x x",
        "push": "x x",
        "try": "x --patch x",
        "yank": "x x --undo",
        "cache ls": "",
        "cache clear": "",
    }
    ran = run(*name.split(), *needed.get(name, "x").split(), "--json", "-q")
    assert (ran.code, ran.stdout) == (2, "")
    assert "exclude each other" in " ".join(ran.stderr.replace("│", " ").split())


def test_the_root_lists_groups_commands_session_and_exit_codes() -> None:
    ran = run("--help")
    assert ran.code == 0
    shown = " ".join(ran.stdout.split())
    assert [group for group in GROUPS if f"╭─ {group} ─" not in ran.stdout] == []
    assert all(f"$ {line}" in shown for line in SESSION)
    assert all(f"{code.value} {text}" in shown for code, text in EXIT_MEANINGS.items())


def test_without_a_command_the_help_is_shown() -> None:
    ran = run()
    assert ran.code == 2
    assert "Usage" in ran.stdout + ran.stderr


def test_an_unknown_command_is_a_usage_error_with_the_nearest_name() -> None:
    ran = run("inspct", "x")
    assert ran.code == 2
    assert "inspect" in ran.stderr


def test_version() -> None:
    import patchkit

    assert run("--version").stdout == f"patchkit {patchkit.__version__}\n"


def test_functions_are_short(root: Path) -> None:
    for path in (root / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                assert (node.end_lineno or 0) - first.lineno < 30, (path.name, node.name)
