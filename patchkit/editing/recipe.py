"""The settings of an edit: one frozen value, readable from TOML and from a patch's metadata."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from patchkit.editing.methods import find_method
from patchkit.editing.protect import Protection, check_protections
from patchkit.editing.settings import at_least, at_most, build, nearest, one_of
from patchkit.errors import RecipeError

Storage = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How facts become a patch.

    `method` names a module in `editing/methods/`, whose `Options` are the type of `options`; a
    mapping, or nothing, is turned into them. `protect` adds protections that are not the method's
    own, with the thresholds in `protection`. `layers` None means chosen by measurement, at most
    `most_layers`. Facts are written `batch` at a time, in `contexts` contexts besides the bare
    prompt. `rewrite` says whether facts that later batches hurt are written again; None means as
    the method does by itself. The preserved text has `corpus_rows` rows of `corpus_length` tokens,
    of which a share of `sensitivity` counts as far as the base's predictions hang on them.
    """

    method: str = "rotation"
    options: Any = None
    protect: tuple[str, ...] = ()
    protection: Protection = field(default_factory=Protection)
    layers: tuple[int, ...] | None = None
    most_layers: int = 1
    batch: int = 50
    contexts: int = 4
    rewrite: bool | None = None
    corpus_rows: int = 1024
    corpus_length: int = 64
    sensitivity: float = 0.0
    seed: int = 0
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        at_least(self, 1, "batch", "corpus_rows", "corpus_length", "most_layers")
        at_least(self, 0, "contexts", "sensitivity")
        at_most(self, 1, "sensitivity")
        one_of(self, "storage", ("float32", "bfloat16"))
        method = find_method(self.method)
        options = {} if self.options is None else self.options
        if isinstance(options, Mapping):
            options = build(method.Options, options, f"options of {self.method}")
        if not isinstance(options, method.Options):
            raise RecipeError(
                f"the options of {self.method} cannot be {options!r}",
                hint="give them anew when the method changes",
            )
        check_protections(self.method, method.PROTECTIONS, self.protect)
        host = getattr(options, "host", None)
        if host is not None:
            check_protections(f"{self.method} over {host}", _composes(host), self.protect)
        object.__setattr__(self, "options", options)
        if self.rewrite is None:
            object.__setattr__(self, "rewrite", method.REWRITES)

    def as_dict(self) -> dict[str, object]:
        """Return the settings as plain data for a patch's metadata."""
        return asdict(self)


def _composes(method: str) -> Mapping[str, str | None]:
    return find_method(method).PROTECTIONS


def recipe_from(given: Mapping[str, object], where: str = "the recipe") -> Recipe:
    """Return the recipe that plain data stands for, the inverse of `as_dict`.

    Raises RecipeError for an unknown setting, with the nearest names, or a value of another type.
    """
    return build(Recipe, given, where)


def read_recipe(source: Path | str) -> Recipe:
    """Read a TOML file, or one of the `built_in_recipes` by its name, such as `memit-llama3-8b`.

    Raises RecipeError when there is neither, or for anything in it that is not a setting.
    """
    path = Path(source)
    built_in = built_in_recipes()
    if str(source) in built_in and not path.is_file():
        return _parse(_folder().joinpath(f"{source}.toml").read_bytes(), f"{source}.toml")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path.name} cannot be read as a recipe: {error.strerror}",
            hint=nearest(path.name, built_in),
        ) from error
    return _parse(data, path.name)


def built_in_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    found = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def _folder() -> Any:
    return files("patchkit.editing").joinpath("recipes")


def _parse(data: bytes, name: str) -> Recipe:
    try:
        given = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{name} cannot be read as a recipe: {error}") from error
    return recipe_from(given, name)
