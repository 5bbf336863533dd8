"""What a benchmark runs: one TOML file of testbeds, methods and numbers of sequential edits."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchkit.editing.recipe import Recipe, read_recipe, recipe_from
from patchkit.editing.settings import build, nearest
from patchkit.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Testbed:
    """A base and what it is asked.

    `base` is a folder of the data, or a reference such as `atlas`; `records` a file of facts that
    may be edited, `retention` a JSON array of {prompt, target} about subjects that none of them
    mentions; `corpus`, if given, a text to preserve instead of the base's own samples. `{split}` in
    any of these stands for the benchmark's split.
    """

    name: str = ""
    base: str = ""
    records: str = ""
    retention: str = ""
    corpus: str | None = None

    def __post_init__(self) -> None:
        """RecipeError for a testbed that lacks one of them."""
        for part in ("name", "base", "records", "retention"):
            if not getattr(self, part):
                raise RecipeError(f"the testbed {self.name!r} has no {part}")


@dataclass(frozen=True, slots=True)
class Contender:
    """A method with its settings, under the name it has in tables.

    Settings come from `recipe` (a file beside the benchmark's, or a built-in name), then `method`,
    `protect`, `options` of the method and other `settings` of a recipe. `grid` gives lists of
    values by the (dotted) name of an option: every combination is a contender of its own.
    `batches`, `checkpoints` and `seeds` replace those of the benchmark; `testbeds` names those it
    runs on.
    """

    label: str = ""
    recipe: str | None = None
    method: str | None = None
    protect: tuple[str, ...] = ()
    options: Any = None
    settings: Any = None
    grid: Any = None
    testbeds: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None
    checkpoints: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A benchmark: every method on every testbed, in every batch size, for every seed.

    `checkpoints` are numbers of sequential edits; one beyond the records means all of them. A seed
    draws the records and their order. `folder` is where files of recipes are looked for.
    """

    split: str = "test"
    testbeds: tuple[Testbed, ...] = ()
    methods: tuple[Contender, ...] = ()
    checkpoints: tuple[int, ...] = (1, 10, 100, 500, 1000)
    batches: tuple[int, ...] = (10, 100)
    seeds: tuple[int, ...] = (0,)
    folder: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        """Put every combination of a grid in its place; RecipeError for what cannot run."""
        for name in ("testbeds", "methods", "checkpoints", "batches", "seeds"):
            if not getattr(self, name):
                raise RecipeError(f"the benchmark has no {name}")
        if min((*self.checkpoints, *self.batches)) < 1:
            raise RecipeError("checkpoints and batches count facts, from 1 on")
        every = tuple(each for one in self.methods for each in _expanded(one))
        object.__setattr__(self, "methods", every)
        beds = [bed.name for bed in self.testbeds]
        for name in (name for one in every for name in one.testbeds or () if name not in beds):
            raise RecipeError(f"there is no testbed {name!r}", hint=nearest(name, beds))
        _check_distinct("testbed", beds)
        _check_distinct("label", [one.label for one in every])

    def only(self, labels: tuple[str, ...]) -> Plan:
        """Return the plan for the contenders of these labels; RecipeError for one it has not."""
        known = {one.label: one for one in self.methods}
        missing = [label for label in labels if label not in known]
        if missing:
            raise RecipeError(
                f"no method has the label {missing[0]!r}", hint="there are: " + ", ".join(known)
            )
        return replace(self, methods=tuple(known[label] for label in labels))


@dataclass(frozen=True, slots=True)
class Run:
    """One sequence of edits: a contender on a testbed, looked at after each of `checkpoints`."""

    testbed: Testbed
    label: str
    recipe: Recipe
    seed: int
    checkpoints: tuple[int, ...]


def runs(plan: Plan) -> Iterator[Run]:
    """Yield every sequence of a plan, testbed by testbed; RecipeError for settings that cannot be.

    Built before anything runs, so that the last method's mistake is not found after days.
    """
    for bed in plan.testbeds:
        for one in plan.methods:
            if one.testbeds is not None and bed.name not in one.testbeds:
                continue
            for batch, seed in itertools.product(
                one.batches or plan.batches, one.seeds or plan.seeds
            ):
                counts = tuple(sorted(set(one.checkpoints or plan.checkpoints)))
                yield Run(bed, one.label, settings_of(one, plan.folder, batch), seed, counts)


def settings_of(one: Contender, folder: Path, batch: int) -> Recipe:
    """Return the recipe of a contender for batches of `batch` facts."""
    start = Recipe() if one.recipe is None else _named(one.recipe, folder)
    data = start.as_dict()
    if one.method not in (None, start.method):
        data |= {"method": one.method, "options": None, "rewrite": None}
    changes = {"protect": one.protect} if one.protect else {}
    given = {**data, **changes, **(one.settings or {}), "batch": batch}
    if one.options:
        given["options"] = {**(data["options"] or {}), **one.options}  # type: ignore[dict-item]
    return recipe_from(given, f"the method {one.label}")


def _named(recipe: str, folder: Path) -> Recipe:
    path = folder / recipe
    return read_recipe(path if path.is_file() else recipe)


def read_plan(path: str | Path) -> Plan:
    """Read a benchmark's TOML file; RecipeError for anything in it that is not a setting."""
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path.name} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path.name} cannot be read as a benchmark: {error}") from error
    return replace(build(Plan, given, path.name), folder=path.parent)


def _check_distinct(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"two entries have the {kind} {twice[0]!r}")


def _expanded(one: Contender) -> Iterator[Contender]:
    """Yield one contender for every combination of the values in its grid, each with a label."""
    name = one.label or "+".join((one.method or one.recipe or Recipe().method, *one.protect))
    grid: Mapping[str, object] = one.grid or {}
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise RecipeError(f"the grid of {name} must give {key} as a list of values")
    for combination in itertools.product(*grid.values()):  # type: ignore[call-overload]
        chosen = dict(zip(grid, combination, strict=True))
        options = one.options
        for key, value in chosen.items():
            options = _with(options or {}, key.split("."), value)
        label = " ".join((name, *(f"{key}={value}" for key, value in chosen.items())))
        yield replace(one, label=label, options=options, grid=None)


def _with(options: Mapping[str, Any], path: list[str], value: object) -> dict[str, Any]:
    """Return `options` with the value at a dotted name."""
    head, *rest = path
    return {**options, head: _with(options.get(head) or {}, rest, value) if rest else value}
