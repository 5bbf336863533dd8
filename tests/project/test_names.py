"""The public names are exactly those exported."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import patchkit

SOURCE = Path(patchkit.__file__).read_text(encoding="utf-8")


def typed_names() -> set[str]:
    """The names that a type checker sees: those imported under TYPE_CHECKING."""
    block = next(
        node
        for node in ast.parse(SOURCE).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imported for alias in node.names}


def test_exported_names_are_the_same_for_people_and_for_type_checkers() -> None:
    assert {*typed_names(), "__version__"} == set(patchkit.__all__)
    assert len(patchkit.__all__) == len(set(patchkit.__all__))


@pytest.mark.parametrize("name", patchkit.__all__)
def test_every_exported_name_exists(name: str) -> None:
    assert getattr(patchkit, name) is not None
    assert name in dir(patchkit)


def test_no_exported_name_is_a_module() -> None:
    """A verb wins over the module of the same name, even after that module was imported."""
    values = {name: getattr(patchkit, name) for name in patchkit.__all__}
    assert [name for name, value in values.items() if isinstance(value, ModuleType)] == []
    assert {name: getattr(patchkit, name) for name in patchkit.__all__} == values


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        patchkit.nonsense  # noqa: B018


def test_every_error_is_a_patchkit_error() -> None:
    for name in patchkit.__all__:
        value = getattr(patchkit, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, patchkit.PatchkitError)
