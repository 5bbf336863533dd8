"""What the statistics of preserved knowledge say of each layer: how much room there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from patchkit.editing.knowledge import Sources, entries_of, preserved_statistics, preserved_text
from patchkit.editing.layers import given_layers
from patchkit.editing.recipe import Recipe
from patchkit.editing.statistics import Statistics
from patchkit.events import SILENT, Progress
from patchkit.tensors.layout import Site, sites

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
THRESHOLDS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """The moment of the keys of one matrix with `d_in` inputs.

    `energy` is its mean eigenvalue. `spectrum` has the eigenvalues at `QUANTILES` of all of them,
    `free` for each of `THRESHOLDS` the dimension of the null space: how many directions have less.
    Both count in units of `energy`. `path` is the file that keeps the moment, `cached` whether it
    did so before.
    """

    layer: int
    tensor: str
    d_in: int
    energy: float
    spectrum: Mapping[float, float]
    free: Mapping[float, int]
    path: Path | None
    cached: bool


@dataclass(frozen=True, slots=True)
class PreservedReport:
    """Statistics over `rows` texts of `length` tokens, `tokens` in all, from `corpus`."""

    corpus: str
    rows: int
    length: int
    tokens: int
    layers: tuple[LayerStatistics, ...]


def measure_preserved(
    model: PreTrainedModel,
    tokenizer: Any,
    recipe: Recipe,
    sources: Sources,
    progress: Progress = SILENT,
) -> PreservedReport:
    """Gather the statistics that edits with `recipe` start from, or find them, and look at them.

    Those of the recipe's layers, or of all. Raises SolveError for a layer that is not there, and
    what `preserved_text` does.
    """
    found = _chosen(sites(model, sources.checkpoint), recipe)
    text = preserved_text(model, tokenizer, recipe, sources, progress)
    shelf = sources.shelf(model)
    entries = {} if shelf is None else entries_of(shelf, text, found)
    before = {layer for layer, entry in entries.items() if entry.path.is_file()}
    moments = preserved_statistics(model, text, found, sources, progress)
    return PreservedReport(
        corpus="self" if sources.corpus is None else sources.corpus.name,
        rows=text.shape[0],
        length=text.shape[1],
        tokens=text.numel(),
        layers=tuple(
            _measured(
                site,
                moments[site.layer],
                entries[site.layer].path if site.layer in entries else None,
                site.layer in before,
            )
            for site in found
        ),
    )


def _chosen(every: Sequence[Site], recipe: Recipe) -> Sequence[Site]:
    if recipe.layers is None:
        return every
    wanted = given_layers(recipe.layers, every).layers
    return [site for site in every if site.layer in wanted]


def _measured(site: Site, kept: Statistics, path: Path | None, cached: bool) -> LayerStatistics:
    energy = kept.energy
    # Rounding leaves the smallest eigenvalues of a moment of few tokens below zero.
    values = torch.linalg.eigvalsh(kept.moment.double()).clamp_min(0) / energy  # (d_in,)
    marks = torch.quantile(values, torch.tensor(QUANTILES).to(values))
    return LayerStatistics(
        layer=site.layer,
        tensor=site.tensor,
        d_in=site.d_in,
        energy=energy,
        spectrum=dict(zip(QUANTILES, marks.tolist(), strict=True)),
        free={threshold: int((values < threshold).sum()) for threshold in THRESHOLDS},
        path=path,
        cached=cached,
    )
