"""From the options of `patchkit edit` to the recipe that they mean."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import Storage

if TYPE_CHECKING:
    from patchkit.editing.recipe import Recipe

Variant = Literal["rome", "r-rome", "p-rome"]
Method = Literal[
    "rotation", "rome", "memit", "emmet", "rect", "prune", "alphaedit", "mose", "mose-oft"
]

MethodOption = Annotated[
    Method | None,
    typer.Option(
        "--method",
        help="How facts are written; rotation by default.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE|NAME",
        help="Settings from a TOML file, or built-in ones such as memit-llama3-8b.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
ProtectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--protect",
        metavar="nullspace|spectrum|history",
        help="What the method must not touch besides; repeatable.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One setting of the recipe or its method, such as lam=100; repeatable.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
VariantOption = Annotated[
    Variant | None,
    typer.Option(
        "--variant",
        help="Which form of ROME; r-rome by default.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
ScalesFlag = Annotated[
    bool,
    typer.Option(
        "--published-scales",
        help="Take learning rates and thresholds as published, not relative to the model's values.",
        rich_help_panel="Method",
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|3,4",
        help="Layers to edit; by default auto, which measures.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
StorageOption = Annotated[
    Storage | None,
    typer.Option(
        help="Type the patch is stored in; float32 by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Facts written at a time.",
        rich_help_panel="Compute",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        help="Seed of all sampling; 0 by default.", rich_help_panel="Method", show_default=False
    ),
]


def chosen(
    start: "Recipe", method: str | None, changes: Mapping[str, object], settings: list[str]
) -> "Recipe":
    """`start` with another method, `NAME=VALUE` texts, and other settings, in that order.

    Options stay only with their method. RecipeError or a usage error for what cannot be.
    """
    from patchkit.editing.recipe import recipe_from

    data: dict[str, Any] = start.as_dict()
    if method not in (None, start.method):
        fresh = {"method": method, "options": None, "rewrite": None}
        data = recipe_from({**data, **fresh}, "the recipe").as_dict()
    for text in settings:
        name, found, value = text.partition("=")
        if not found:
            raise typer.BadParameter(f"--set {text}: give NAME=VALUE")
        _put(data, name.strip(), _parsed(value.strip()))
        if name.strip() == "host":
            data["options"]["host_options"] = None  # those of another host mean nothing here
            data = recipe_from(data, "the recipe").as_dict()
    for key, wanted in changes.items():
        _put(data, key, wanted)
    return recipe_from(data, "the recipe")


def layers_of(text: str) -> tuple[int, ...] | None:
    """The layers that `auto` or `3,4` stands for; a usage error for anything else."""
    if text == "auto":
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"--layers {text}: give auto, or numbers such as 3,4")
    return tuple(sorted({int(number) for number in numbers}))


def starting(name: str) -> "Recipe":
    """The recipe of `--recipe`."""
    from patchkit.editing.recipe import read_recipe

    return read_recipe(Path(name) if Path(name).is_file() else name)


def _put(data: dict[str, Any], name: str, value: object) -> None:
    """Set a dotted name, or a bare one wherever the recipe, its method or its host has it."""
    *path, last = name.split(".")
    holder = data
    for part in path:
        holder = holder.get(part) or {}
        if not isinstance(holder, dict) or not holder:
            raise typer.BadParameter(f"--set {name}: {part} has no settings of its own")
    if not path:
        options: dict[str, Any] = data["options"]
        tables = [data, options, options.get("host_options") or {}, data["protection"]]
        holder = next((table for table in tables if last in table), options)
    holder[last] = value


def _parsed(text: str) -> object:
    """A value as TOML reads it; text that is no value of TOML stands for itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
