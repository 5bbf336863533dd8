"""Which module may import which, read from the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "patchkit"

# Data flows down this list: a part imports only parts that stand before it.
ORDER = (
    "errors",
    "events",
    "report",
    "parallel",
    "models",
    "tensors",
    "factors",
    "patch",
    "facts",
    "base",
    "scoring",
    "live",
    "editing",
    "undo",
    "apply",
    "verify",
    "signing",
    "evaluate",
    "revert",
    "compose",
    "diff",
    "extract",
    "runtime",
    "export",
    "hub",
    "bench",
)
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def part(path: Path) -> str:
    """The entry of ORDER that a file belongs to."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """The full name of the module that `from ... import` reads."""
    if not node.level:
        return node.module or ""
    package = path.relative_to(ROOT).parent.parts
    package = package[: len(package) - node.level + 1]
    return ".".join((*package, *((node.module,) if node.module else ())))


def imports(path: Path) -> Iterator[str]:
    """Every name a file imports, in full, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_upward_only(path: Path) -> None:
    assert part(path) in ORDER, f"{part(path)} has no place in the order of layers"
    allowed = {*ORDER[: ORDER.index(part(path)) + 1], "__version__"}
    inside = [name for name in imports(path) if name.split(".")[0] == "patchkit"]
    assert [name for name in inside if name.split(".")[1] not in allowed] == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_library_never_imports_the_command_line(path: Path) -> None:
    command_line = {"cli", "patchkit_cli", "typer", "click", "rich"}
    assert {name.split(".")[0] for name in imports(path)} & command_line == set()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_hub_imports_huggingface_hub(path: Path) -> None:
    if part(path) != "hub":
        used = {name for name in imports(path) if name.startswith("huggingface_hub")}
        # transformers lets some of its errors through
        assert {name for name in used if not name.startswith("huggingface_hub.errors.")} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "cli").rglob("*.py")), ids=relative)
def test_the_command_line_uses_relative_imports_of_itself(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] not in {"cli", "patchkit_cli"}
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"cli", "patchkit_cli"}


@pytest.mark.parametrize("path", sorted((ROOT / "cli").rglob("*.py")), ids=relative)
def test_only_public_names_of_typer_are_used(path: Path) -> None:
    names = list(imports(path))
    assert [name for name in names if name.split(".")[0] == "click"] == []
    assert [name for name in names if name.startswith("typer._")] == []
