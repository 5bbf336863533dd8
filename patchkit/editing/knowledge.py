"""Preserved text and statistics of a base, made once and kept in a cache folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.corpus import file_corpus, self_corpus
from patchkit.editing.recipe import Recipe
from patchkit.editing.statistics import (
    Statistics,
    cache_key,
    gather,
    load_cached,
    save_cached,
)
from patchkit.events import SILENT, Progress
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from patchkit.tensors.layout import Site


@dataclass(frozen=True, slots=True)
class Sources:
    """Where preserved text comes from (a file, or None for the base itself) and where it is kept.

    Nothing is cached without both a `cache_dir` and a `checkpoint` to know the base by.
    """

    checkpoint: Checkpoint | None = None
    corpus: Path | None = None
    cache_dir: Path | None = None

    def key(self, kind: str, model: PreTrainedModel, recipe: Recipe, **more: object) -> str | None:
        """Return the cache key of something made from this base and this text, if it has one."""
        if self.checkpoint is None or self.cache_dir is None:
            return None
        text = None if self.corpus is None else file_digest(self.corpus)
        return cache_key(
            {
                "kind": kind,
                "base": base_identity(self.checkpoint),
                "dtype": str(model.dtype),
                "device": model.device.type,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "text": text,
                "rows": recipe.corpus_rows,
                "length": recipe.corpus_length,
                "seed": None if text else recipe.seed,
                **more,
            }
        )


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
    """Return the token rows (n, t) that stand for preserved knowledge."""
    rows, length = recipe.corpus_rows, recipe.corpus_length
    if sources.corpus is not None:
        return file_corpus(sources.corpus, tokenizer, rows=rows, length=length)
    key = sources.key("text", model, recipe)
    found = None if key is None else load_cached(sources.cache_dir, key)
    if found is not None:
        return found["ids"]
    ids = self_corpus(
        model, tokenizer, rows=rows, length=length, seed=recipe.seed, progress=progress
    ).cpu()
    if key is not None:
        save_cached(sources.cache_dir, key, {"ids": ids})
    return ids


def preserved_statistics(
    model: PreTrainedModel,
    corpus: Tensor,
    sites: Sequence[Site],
    recipe: Recipe,
    sources: Sources,
    progress: Progress = SILENT,
    workers: Workers = ALONE,
) -> Mapping[int, Statistics]:
    """Return the statistics of every site's keys over `corpus`, cached ones where there are.

    They are gathered by all of `workers` unless every one has found them.
    """
    key = sources.key("moments", model, recipe, sites=[site.tensor for site in sites])
    found = None if key is None else load_cached(sources.cache_dir, key)
    if workers.agree(found is not None) and found is not None:
        return {
            int(layer): Statistics(moment.to(model.device), corpus.numel())
            for layer, moment in found.items()
        }
    made = gather(model, corpus, sites, workers=workers, progress=progress)
    if key is not None:
        save_cached(
            sources.cache_dir, key, {str(layer): kept.moment for layer, kept in made.items()}
        )
    return made
