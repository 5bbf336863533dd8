"""`patchkit stats`: statistics of preserved knowledge, made and looked at."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from . import cache
from .bases import local_base
from .corpus import CorpusOption, corpus_of
from .edit_recipe import (
    LayersOption,
    RecipeOption,
    SeedOption,
    SetOption,
    chosen,
    layers_of,
    starting,
)
from .loading import load
from .options import DeviceOption, DtypeOption, JsonFlag, QuietFlag
from .output import Out, Row
from .progress import shown
from .units import count

if TYPE_CHECKING:
    from patchkit.editing.preserved import LayerStatistics, PreservedReport
    from patchkit.editing.recipe import Recipe

EXAMPLES = (
    "patchkit stats atlas",
    "patchkit stats ./gpt2-xl --layers 13,14,15 --set corpus_rows=8192",
    "patchkit stats ./gpt2-xl --corpus hf://datasets/ada/articles:train:text",
)

BaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="BASE", help="Base model: a local folder, or atlas.", show_default=False
    ),
]


def stats(
    base: BaseArgument,
    layers: LayersOption = None,
    corpus: CorpusOption = "self",
    recipe: RecipeOption = None,
    set: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure what a base must keep, ahead of edits, and show it.

    Gathers the second moment of the keys of preserved text for every layer in one pass and keeps
    them in the cache, where `edit` finds them if it is given the same text and settings. A run
    that was interrupted is gone on with.
    """
    from patchkit.editing.knowledge import Sources
    from patchkit.editing.preserved import measure_preserved

    out = Out.choose("stats", json=json, quiet=quiet)
    settings = _recipe(recipe, layers, seed, set or [])
    text = corpus_of(corpus)
    folder = local_base(base, out)
    with shown(out) as progress:
        loaded = load(folder, device, dtype)
        sources = Sources(loaded.checkpoint, text, cache.folder())
        report = measure_preserved(
            loaded.model, loaded.tokenizer, settings, sources, progress=progress
        )
    _show(out, report)
    out.result(_data(base, report, out.seconds), quiet=str(cache.folder()))


def _recipe(
    recipe: str | None, layers: str | None, seed: int | None, settings: list[str]
) -> "Recipe":
    from patchkit.editing.recipe import Recipe

    changes: dict[str, object] = {} if seed is None else {"seed": seed}
    if layers is not None:
        changes["layers"] = layers_of(layers)
    return chosen(Recipe() if recipe is None else starting(recipe), None, changes, settings)


def _show(out: Out, report: "PreservedReport") -> None:
    texts = f"{count(report.rows, 'text')} of {count(report.length, 'token')}"
    source = "the base itself" if report.corpus == "self" else report.corpus
    new = sum(not row.cached for row in report.layers)
    out.done(f"measured {count(new, 'layer')}, {len(report.layers) - new} in the cache before")
    out.fields({"text": f"{texts}, from {source}", "kept in": str(cache.folder())})
    first = report.layers[0]
    spectrum = [f"{mark:.0%}" for mark in first.spectrum]
    free = [f"<{threshold:g}" for threshold in first.free]
    rows = [_row(row) for row in report.layers]
    heads = ("LAYER", "INPUTS", "ENERGY", *spectrum, *free)
    out.table(heads, rows, right="R" * len(heads))
    out.line("Eigenvalues at shares of all and directions below thresholds, in units of the energy")


def _row(row: "LayerStatistics") -> Row:
    spectrum = [f"{value:.2g}" for value in row.spectrum.values()]
    return Row(row.layer, row.d_in, f"{row.energy:.3g}", *spectrum, *row.free.values())


def _data(base: str, report: "PreservedReport", seconds: float) -> dict[str, object]:
    return {
        "base": base,
        "corpus": report.corpus,
        "rows": report.rows,
        "length": report.length,
        "tokens": report.tokens,
        "layers": [
            {
                **asdict(row),
                "path": None if row.path is None else str(row.path),
                "spectrum": {f"{mark:g}": value for mark, value in row.spectrum.items()},
                "free": {f"{threshold:g}": value for threshold, value in row.free.items()},
            }
            for row in report.layers
        ],
        "seconds": seconds,
    }
