"""Preserved text and statistics of a base, made once and kept in a cache folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.cache import Entry, Shelf, cache_key
from patchkit.editing.corpus import file_corpus, self_corpus
from patchkit.editing.dataset_text import DatasetText, dataset_corpus
from patchkit.editing.recipe import Recipe
from patchkit.editing.rehearsal import Rehearsal, rehearse
from patchkit.editing.sensitivity import Sensitivity, gather_sensitivity
from patchkit.editing.statistics import Statistics, gather
from patchkit.events import SILENT, Progress
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import Site

_PREDICTED = ("row", "position", "likeliest", "logprobs")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where preserved text comes from, None for the base itself, and where it is kept.

    Nothing is cached without both a `cache_dir` and a `checkpoint` to know the base by.
    """

    checkpoint: Checkpoint | None = None
    corpus: Path | DatasetText | None = None
    cache_dir: Path | None = None

    def shelf(self, model: PreTrainedModel) -> Shelf | None:
        """Return where things made with this base are kept, if anywhere."""
        if self.checkpoint is None or self.cache_dir is None:
            return None
        parts = {
            "base": base_identity(self.checkpoint),
            "dtype": str(model.dtype),
            "device": model.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        return Shelf(self.cache_dir, parts)


def base_identity(checkpoint: Checkpoint) -> str:
    """Return a digest that tells bases apart without reading all their weights.

    It covers the configuration, every tensor's name, type, shape and place, and the bytes of the
    first and last tensor.
    """
    names = sorted(checkpoint.tensors)
    layout = {
        name: [entry.info.dtype, list(entry.info.shape), entry.shard, entry.info.start]
        for name, entry in checkpoint.tensors.items()
    }
    ends = [checkpoint.digest(name) for name in {names[0], names[-1]}]
    return cache_key({"config": checkpoint.config_digest, "layout": layout, "ends": sorted(ends)})


def preserved_text(
    model: PreTrainedModel,
    tokenizer: Any,
    recipe: Recipe,
    sources: Sources,
    progress: Progress = SILENT,
) -> Tensor:
    """Return the token rows (n, t) that stand for preserved knowledge.

    Raises FactsError for a text that is too short and ExtraMissing for a data set without the
    package that reads it.
    """
    size: dict[str, int] = {"rows": recipe.corpus_rows, "length": recipe.corpus_length}
    if isinstance(sources.corpus, Path):
        return file_corpus(sources.corpus, tokenizer, **size)
    told_apart: dict[str, object]
    if sources.corpus is None:
        told_apart = {"text": None, "seed": recipe.seed}
    else:
        told_apart = {"text": sources.corpus.name, "tokens": vocabulary_digest(tokenizer)}
    shelf = sources.shelf(model)
    entry = None if shelf is None else shelf.entry("text", **size, **told_apart)

    def made() -> dict[str, Tensor]:
        if isinstance(sources.corpus, DatasetText):
            return {"ids": dataset_corpus(sources.corpus, tokenizer, **size, progress=progress)}
        ids = self_corpus(model, tokenizer, **size, seed=recipe.seed, progress=progress)
        return {"ids": ids.cpu()}

    return _once(entry, made)["ids"]


def preserved_statistics(
    model: PreTrainedModel,
    text: Tensor,
    sites: Sequence[Site],
    sources: Sources,
    progress: Progress = SILENT,
    workers: Workers = ALONE,
) -> Mapping[int, Statistics]:
    """Return the statistics of every site's keys over `text` (n, t), cached ones where there are.

    They are kept one by one, by the base and the tokens of the text, and those that are missing are
    gathered in one pass. Several processes gather all of them together unless each has found all.
    """
    shelf = sources.shelf(model)
    if shelf is None:
        return gather(model, text, sites, workers=workers, progress=progress)
    entries = entries_of(shelf, text, sites)
    found = {site.layer: entries[site.layer].load() for site in sites}
    here = {
        layer: Statistics(kept["moment"].to(model.device), text.numel())
        for layer, kept in found.items()
        if kept is not None
    }
    if workers.agree(len(here) == len(sites)):
        return here
    lacking = [site for site in sites if workers.count > 1 or site.layer not in here]
    names = [site.tensor for site in lacking]
    share = [workers.rank, workers.count]
    digest = tokens_digest(text)
    unfinished = shelf.entry("sums", text=digest, sites=names, share=share)
    made = gather(model, text, lacking, unfinished=unfinished, workers=workers, progress=progress)
    for layer, statistics in made.items():
        entries[layer].save({"moment": statistics.moment})
    unfinished.drop()
    return {site.layer: made.get(site.layer) or here[site.layer] for site in sites}


def weighed_statistics(
    model: PreTrainedModel,
    text: Tensor,
    sites: Sequence[Site],
    share: float,
    sources: Sources,
    progress: Progress = SILENT,
    workers: Workers = ALONE,
) -> Mapping[int, Statistics]:
    """Return `preserved_statistics`, a `share` of which weighs tokens by their sensitivity."""
    plain = preserved_statistics(model, text, sites, sources, progress, workers)
    if not share:
        return plain
    found = _sensitivity(model, text, sites, sources, progress, workers)
    return {layer: found[layer].weigh(statistics, share) for layer, statistics in plain.items()}


def preserved_predictions(
    model: PreTrainedModel, text: Tensor, sources: Sources, progress: Progress = SILENT
) -> Rehearsal:
    """Return what the base predicts of `text` (n, t), the cached predictions where there are."""
    shelf = sources.shelf(model)
    entry = None if shelf is None else shelf.entry("surest", text=tokens_digest(text))

    def made() -> dict[str, Tensor]:
        read = rehearse(model, text, progress)
        return {name: getattr(read, name) for name in _PREDICTED}

    return Rehearsal(text.cpu(), **_once(entry, made))


def _once(entry: Entry | None, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what `entry` keeps, made and kept now where there is nothing readable."""
    found = None if entry is None else entry.load()
    if found is None:
        found = make()
        if entry is not None:
            entry.save(found)
    return found


def _sensitivity(
    model: PreTrainedModel,
    text: Tensor,
    sites: Sequence[Site],
    sources: Sources,
    progress: Progress,
    workers: Workers,
) -> Mapping[int, Sensitivity]:
    """Return every site's sensitivity, the cached ones if none is missing."""
    shelf = sources.shelf(model)
    if shelf is None:
        return gather_sensitivity(model, text, sites, workers=workers, progress=progress)
    digest = tokens_digest(text)
    entries = {
        site.layer: shelf.entry("sensitivity", text=digest, site=site.tensor) for site in sites
    }
    kept = {layer: entry.load() for layer, entry in entries.items()}
    here = {
        layer: Sensitivity(parts["keys"].to(model.device), parts["values"].to(model.device))
        for layer, parts in kept.items()
        if parts is not None
    }
    if workers.agree(len(here) == len(sites)):
        return here
    made = gather_sensitivity(model, text, sites, workers=workers, progress=progress)
    for layer, sensitivity in made.items():
        entries[layer].save({"keys": sensitivity.keys, "values": sensitivity.values})
    return made


def entries_of(shelf: Shelf, text: Tensor, sites: Sequence[Site]) -> dict[int, Entry]:
    """Return where the moment of each site's keys over `text` is kept, by layer."""
    digest = tokens_digest(text)
    return {site.layer: shelf.entry("moment", text=digest, site=site.tensor) for site in sites}


def tokens_digest(text: Tensor) -> str:
    """Return a digest of token rows (n, t), the corpus as the model sees it."""
    rows = text.cpu().contiguous()
    return bytes_digest(str(tuple(rows.shape)).encode() + rows.numpy().tobytes())


def vocabulary_digest(tokenizer: Any) -> str:
    """Return a digest of the tokens that `tokenizer` cuts a text into."""
    return cache_key({"vocabulary": tokenizer.get_vocab()})
