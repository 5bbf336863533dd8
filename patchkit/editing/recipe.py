"""The settings of an edit: one frozen value, readable from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from patchkit.errors import RecipeError

Storage = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How facts become a patch.

    `layers` None means chosen by measurement, at most `most_layers`. Facts are written `batch` at
    a time. `softness` ε is how much key energy, in mean eigenvalues of the preserved moment, a
    direction may carry before it counts as taken: larger means freer and less careful.
    `preserve` λ, `history` and `floor` weigh the loss; see `methods/rotation.py`.
    """

    layers: tuple[int, ...] | None = None
    most_layers: int = 1
    batch: int = 50
    contexts: int = 4
    steps: int = 50
    rate: float = 0.05
    softness: float = 0.3
    preserve: float = 10000.0
    history: float = 10.0
    floor: float = 0.1
    corpus_rows: int = 1024
    corpus_length: int = 64
    seed: int = 0
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        for name in ("batch", "steps", "corpus_rows", "corpus_length", "most_layers"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rate", "softness"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.storage not in ("float32", "bfloat16"):
            raise RecipeError(f"storage must be float32 or bfloat16, got {self.storage!r}")

    def as_dict(self) -> dict[str, object]:
        """Return the settings as plain data for a patch's metadata."""
        return asdict(self)


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file whose keys are settings; RecipeError on anything else in it."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path.name} cannot be read as a recipe: {error}") from error
    known = asdict(Recipe())
    for name, value in given.items():
        _check(path.name, name, value, known)
    if "layers" in given:
        given["layers"] = tuple(given["layers"])
    return Recipe(**given)


def _check(file: str, name: str, value: object, known: Mapping[str, object]) -> None:
    """RecipeError unless `name` is a setting and `value` of its type; whole numbers are numbers."""
    if name not in known:
        raise RecipeError(
            f"{file} has the unknown setting {name!r}",
            hint="settings are: " + ", ".join(sorted(known)),
        )
    if name == "layers":
        right = isinstance(value, list) and all(type(layer) is int for layer in value)
    else:
        wanted = type(known[name])
        right = type(value) is wanted or (wanted is float and type(value) is int)
    if not right:
        raise RecipeError(f"{file} gives {name} the value {value!r}, which is of another type")
