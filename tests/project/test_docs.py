"""The pages of the documentation hang together."""

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest

import patchkit

ROOT = Path(__file__).resolve().parents[2]
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    named = {(index.parent / link).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    pages = {path for path in PAGES if path.parent == index.parent and path != index}
    assert pages - named == set()


def calls(page: Path) -> list[ast.Call]:
    """Every call of `patchkit.something(...)` in the Python blocks of a page."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), flags=re.M | re.S)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    return [
        node
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("patchkit.")
    ]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_calls_in_python_blocks_fit_the_functions(page: Path) -> None:
    for call in calls(page):
        _, name, *attributes = ast.unparse(call.func).split(".")
        assert name in patchkit.__all__
        function = functools.reduce(getattr, attributes, getattr(patchkit, name))
        keywords = {keyword.arg or "": None for keyword in call.keywords}
        inspect.signature(function).bind(*call.args, **keywords)
