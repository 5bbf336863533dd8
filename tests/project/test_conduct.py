"""What the library must not do, and what no source file may look like."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "patchkit").rglob("*.py"))
SOURCES = [*LIBRARY, *sorted((ROOT / "cli").rglob("*.py"))]
LINES = 300
CALLS = {"print", "input", "exit", "quit", "breakpoint", "eval", "exec"}
ATTRIBUTES = {
    "logging.basicConfig",
    "os._exit",
    "os.environ",
    "os.getenv",
    "os.putenv",
    "sys.argv",
    "sys.exit",
    "sys.stderr",
    "sys.stdin",
    "sys.stdout",
    "torch.load",
    "torch.save",
}
UNSAFE = {"dill", "joblib", "marshal", "pickle", "shelve"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def deeds(tree: ast.AST) -> set[str]:
    """The forbidden things that a module does, by name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= CALLS & {node.func.id}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= ATTRIBUTES & {f"{node.value.id}.{node.attr}"}
        elif isinstance(node, ast.ImportFrom):
            found |= ATTRIBUTES & {f"{node.module}.{alias.name}" for alias in node.names}
            found |= UNSAFE & {(node.module or "").split(".")[0]}
        elif isinstance(node, ast.Import):
            found |= UNSAFE & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.add("trust_remote_code")
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_the_library_takes_values_and_gives_values(path: Path) -> None:
    assert deeds(ast.parse(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(
    ("source", "deed"),
    [
        ("print(1)", "print"),
        ("import os\nos.environ['A']", "os.environ"),
        ("from os import environ", "os.environ"),
        ("import sys\nsys.exit(1)", "sys.exit"),
        ("import pickle", "pickle"),
        ("load(x, trust_remote_code=True)", "trust_remote_code"),
    ],
)
def test_each_forbidden_deed_is_seen(source: str, deed: str) -> None:
    assert deeds(ast.parse(source)) == {deed}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_source_names_an_unfinished_part_or_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", text) == []
    assert re.findall(r"(?:/home/|/root/|/tmp/|[A-Z]:\\\\Users)\S*", text) == []
