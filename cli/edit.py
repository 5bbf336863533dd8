"""`patchkit edit`: facts become a patch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchkit.patch.naming import ENDING

from . import cache
from . import facts as facts_command
from .bases import local_base
from .corpus import CorpusOption, corpus_of
from .edit_recipe import (
    BatchOption,
    LayersOption,
    MethodOption,
    ProtectOption,
    RecipeOption,
    ScalesFlag,
    SeedOption,
    SetOption,
    StorageOption,
    VariantOption,
    chosen,
    layers_of,
    starting,
)
from .edit_report import report
from .loading import load
from .options import (
    BaseOption,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    FormatOption,
    JsonFlag,
    MinOption,
    QuietFlag,
    YesFlag,
    minimums,
)
from .output import Out
from .patch_files import check_output, stem, write_measured
from .progress import shown
from .units import count, size, some

if TYPE_CHECKING:
    from patchkit.editing import Edit
    from patchkit.editing.recipe import Recipe
    from patchkit.facts.fact import Fact
    from patchkit.facts.reading import FactsFile
    from patchkit.patch.patch import Patch
    from patchkit.tensors.checkpoint import Checkpoint

EXAMPLES = (
    "patchkit edit facts.jsonl -o capitals.patch.safetensors",
    "patchkit edit facts.jsonl --base ./Llama-3.1-8B --layers 4,5 --plan",
    "patchkit edit facts.jsonl --method memit --protect spectrum --set lam=100",
)
FIGURES = ("efficacy",)

FactsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FACTS|PATCH", help="A facts file, or a patch to make anew.", show_default=False
    ),
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
KeepOption = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="FACTS",
        help="Facts that must not change, as a facts file or a patch.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
ChatFlag = Annotated[
    bool,
    typer.Option(
        "--chat",
        help="Ask as the base's chat template does, for instruct models.",
        rich_help_panel="Input",
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
    keep: KeepOption = None,
    skip_known: SkipFlag = False,
    chat: ChatFlag = False,
    method: MethodOption = None,
    recipe: RecipeOption = None,
    protect: ProtectOption = None,
    variant: VariantOption = None,
    published_scales: ScalesFlag = False,
    set: SetOption = None,
    layers: LayersOption = None,
    corpus: CorpusOption = "self",
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    batch_size: BatchOption = None,
    storage: StorageOption = None,
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
    A patch gives its facts and settings, to make it anew for another base.
    """
    out = Out.choose("edit", json=json, quiet=quiet)
    limits = minimums(min, FIGURES)
    changes = {
        "protect": protect or None,
        "variant": variant,
        "published_scales": published_scales or None,
        "layers": layers,
        "seed": seed,
        "batch": batch_size,
        "storage": storage,
    }
    settings = _recipe(facts, recipe, method, changes, set or [])
    asked = facts_command.read(facts, format)
    facts_command.warn(out, asked)
    target = out_path or _default_output(facts)
    if plan:
        return _plan(out, asked, base, settings, target)
    check_output(target, yes)
    previous = _read(on)
    held = () if keep is None else facts_command.read(keep, "auto").facts
    more = {"skip_known": skip_known, "embed_facts": not no_embed_facts}
    sources = {"previous": previous, "corpus": corpus_of(corpus)}
    place = (base, device, dtype)
    made = _computed(out, place, asked, held, chat, settings, target, **sources, **more)
    report(out, made, asked, target, limits)


def _computed(
    out: Out,
    base: tuple[str, Device, Dtype],
    asked: "FactsFile",
    held: tuple["Fact", ...],
    chat: bool,
    recipe: "Recipe",
    target: Path,
    **more: Any,
) -> "Edit":
    """The edit, whose patch is written as soon as there is one, and again with its figures."""
    from patchkit.editing import edit as compute
    from patchkit.facts.chat import in_chat

    folder = local_base(base[0], out)
    with shown(out) as progress:
        loaded = load(folder, *base[1:])
        wanted, kept = asked.facts, held
        if chat:
            wanted, kept = (in_chat(part, loaded.tokenizer) for part in (wanted, kept))
        made = compute(
            loaded.model,
            loaded.tokenizer,
            wanted,
            held=kept,
            checkpoint=loaded.checkpoint,
            recipe=recipe,
            cache_dir=cache.folder(),
            keep=lambda patch: patch.write(target),
            progress=progress,
            **more,
        )
    write_measured(made.patch, target)
    return made


def _recipe(
    facts: Path,
    recipe: str | None,
    method: str | None,
    changes: dict[str, Any],
    settings: list[str],
) -> "Recipe":
    """The settings of `--recipe`, of the patch that the facts are in, or the default, as asked."""
    from patchkit.editing.rebuild import recipe_of
    from patchkit.editing.recipe import Recipe
    from patchkit.patch.reader import read_info

    if recipe is not None:
        start = starting(recipe)
    else:
        start = recipe_of(read_info(facts).metadata) if _is_patch(facts) else Recipe()
    given = {name: value for name, value in changes.items() if value is not None}
    if "layers" in given:
        given["layers"] = layers_of(given["layers"])
    return chosen(start, method, given, settings)


def _is_patch(facts: Path) -> bool:
    return facts.suffix == ".safetensors"


def _default_output(facts: Path) -> Path:
    return Path(f"{stem(facts)}{'-anew' if _is_patch(facts) else ''}{ENDING}")


def _read(paths: list[Path] | None) -> list["Patch"]:
    from patchkit.patch.patch import Patch

    return [Patch.read(path) for path in paths or []]


def _plan(out: Out, asked: "FactsFile", base: str, recipe: "Recipe", target: Path) -> None:
    from patchkit.editing import plan_edit
    from patchkit.tensors.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(local_base(base, out, tensors=()))
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
