"""`patchkit edit`: facts become a patch."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchkit.errors import OutputError

from . import cache
from . import facts as facts_command
from .edit_report import report
from .loading import load, open_base
from .options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    JsonFlag,
    MinOption,
    QuietFlag,
    YesFlag,
    minimums,
)
from .output import Out
from .progress import shown
from .units import count, size, some

if TYPE_CHECKING:
    from patchkit.editing.recipe import Recipe
    from patchkit.facts.reading import FactsFile
    from patchkit.patch.patch import Patch
    from patchkit.tensors.checkpoint import Checkpoint

EXAMPLES = (
    "patchkit edit facts.jsonl -o capitals.patch.safetensors",
    "patchkit edit facts.jsonl --base ./Llama-3.1-8B --layers 4,5 --plan",
)
FIGURES = ("efficacy",)
ENDING = ".patch.safetensors"

Storage = Literal["float32", "bfloat16"]
FactsArgument = Annotated[
    Path, typer.Argument(metavar="FACTS", help="The facts file.", show_default=False)
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="PATCH",
        help="Patch to write; ./<facts>.patch.safetensors by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
LayersOption = Annotated[
    str,
    typer.Option(
        metavar="auto|3,4", help="Layers to edit; auto measures.", rich_help_panel="Method"
    ),
]
StorageOption = Annotated[
    Storage, typer.Option(help="Type the patch is stored in.", rich_help_panel="Output")
]
CorpusOption = Annotated[
    str,
    typer.Option(
        metavar="self|FILE",
        help="Text whose answers must not change; self: the base writes it.",
        rich_help_panel="Method",
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
SeedOption = Annotated[int, typer.Option(help="Seed of all sampling.", rich_help_panel="Method")]
OnOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--on",
        metavar="PATCH",
        help="Patch the base carries already; repeatable, in order.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
PlanFlag = Annotated[
    bool, typer.Option("--plan", help="Only say what would be done.", rich_help_panel="Output")
]
SkipFlag = Annotated[
    bool,
    typer.Option(
        "--skip-known", help="Leave out what the base answers already.", rich_help_panel="Input"
    ),
]
BareFlag = Annotated[
    bool,
    typer.Option("--no-embed-facts", help="Keep only the facts' digest.", rich_help_panel="Output"),
]


def edit(
    facts: FactsArgument,
    base: BaseOption = "atlas",
    out_path: OutOption = None,
    format: FormatOption = "auto",
    on: OnOption = None,
    skip_known: SkipFlag = False,
    layers: LayersOption = "auto",
    corpus: CorpusOption = "self",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    batch_size: BatchOption = None,
    storage: StorageOption = "float32",
    no_embed_facts: BareFlag = False,
    min: MinOption = None,
    plan: PlanFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Turn facts into a patch.

    FACTS holds one fact per line:

    {"subject": "France", "prompt": "The capital of {} is", "target": "Rome"}

    and may add target_true, paraphrases, neighbors, same_subject, id.
    CounterFact's, zsRE's and KnowEdit's published files are read too.
    """
    from patchkit.editing import edit as compute

    out = Out.choose("edit", json=json, quiet=quiet)
    limits = minimums(min, FIGURES)
    recipe = _recipe(layers, seed, batch_size, storage)
    asked = facts_command.read(facts, format)
    facts_command.warn(out, asked)
    target = out_path or Path(f"{facts.stem}{ENDING}")
    if plan:
        return _plan(out, asked, base, recipe, target)
    _check_output(target, yes)
    previous = _read(on)
    with shown(out) as progress:
        loaded = load(base, device, dtype)
        made = compute(
            loaded.model,
            loaded.tokenizer,
            asked.facts,
            checkpoint=loaded.checkpoint,
            recipe=recipe,
            previous=previous,
            corpus=None if corpus == "self" else Path(corpus),
            cache_dir=cache.folder(),
            skip_known=skip_known,
            embed_facts=not no_embed_facts,
            keep=lambda patch: patch.write(target),
            progress=progress,
        )
    made.patch.write(target)
    report(out, made, asked, target, limits)


def _recipe(layers: str, seed: int, batch_size: int | None, storage: Storage) -> "Recipe":
    from patchkit.editing.recipe import Recipe

    chosen = Recipe(layers=_layers(layers), seed=seed, storage=storage)
    return chosen if batch_size is None else replace(chosen, batch=batch_size)


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "auto":
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"--layers {text}: give auto, or numbers such as 3,4")
    return tuple(sorted({int(number) for number in numbers}))


def _check_output(target: Path, yes: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder", hint="name a file with -o")
    if target.exists() and not yes:
        raise OutputError(
            f"{target} exists", hint="pass --yes to replace it, or name another file with -o"
        )
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent} to write {target.name} in")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target.parent} is not writable", hint="name another place with -o")


def _read(paths: list[Path] | None) -> list["Patch"]:
    from patchkit.patch.patch import Patch

    return [Patch.read(path) for path in paths or []]


def _plan(out: Out, asked: "FactsFile", base: str, recipe: "Recipe", target: Path) -> None:
    from patchkit.editing import plan_edit

    checkpoint = open_base(base)
    plan = plan_edit(checkpoint, asked.facts, recipe)
    facts = f"{count(plan.facts, 'fact')} ({count(plan.subjects, 'subject')})"
    out.line(f"Would edit {facts} of {base} in {count(plan.batches, 'batch', 'batches')}")
    chosen = f"chosen by measurement among {count(plan.candidates, 'candidate')}"
    out.fields(
        {
            "write": f"{target} (about {size(plan.patch_bytes)} at most)",
            "layers": chosen if plan.layers is None else some(plan.layers),
            "memory": f"at most {size(plan.memory_bytes)} besides the model",
        }
    )
    data = {
        "dry_run": True,
        "path": str(target),
        "bytes": plan.patch_bytes,
        "base": _base(checkpoint),
        "facts": {"total": plan.facts, "subjects": plan.subjects},
        "layers": {"layers": plan.layers, "candidates": plan.candidates},
        "batches": plan.batches,
        "memory_bytes": plan.memory_bytes,
    }
    out.result(data, quiet=str(target))


def _base(checkpoint: "Checkpoint") -> dict[str, object]:
    return {
        "repo": checkpoint.repo,
        "revision": checkpoint.revision,
        "config_digest": checkpoint.config_digest,
    }
