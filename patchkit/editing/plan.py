"""What an edit would do, read from headers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from patchkit.base import outline
from patchkit.editing.methods import find_method
from patchkit.editing.recipe import Recipe
from patchkit.editing.report import EditPlan
from patchkit.facts.fact import Fact
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import Site, sites

_STORED_BYTES = {"float32": 4, "bfloat16": 2}
_STATE_BYTES = 4 + 4  # fp32 base and current weight
_MOMENT_BYTES = 4 + 8 + 8  # fp32 moment, fp64 H and its factor


def plan_edit(checkpoint: Checkpoint, facts: Sequence[Fact], recipe: Recipe) -> EditPlan:
    """Estimate an edit of the base in `checkpoint`; no weight is read.

    Raises UnsupportedModel for an architecture that cannot be edited and BaseMismatch when the
    configuration and the files disagree.
    """
    found = sites(outline(checkpoint), checkpoint)
    layers = recipe.layers
    edited = recipe.most_layers if layers is None else len(layers)
    widest = max(found, key=lambda site: site.d_in)
    batches = math.ceil(len(facts) / recipe.batch)
    written = len(facts) * _times(recipe, batches)
    numbers = find_method(recipe.method).stored(widest, written, recipe.options)
    return EditPlan(
        facts=len(facts),
        subjects=len({fact.subject for fact in facts}),
        batches=batches,
        layers=layers,
        candidates=len(found),
        patch_bytes=edited * numbers * _STORED_BYTES[recipe.storage],
        memory_bytes=edited * _kept(widest),
    )


def _times(recipe: Recipe, batches: int) -> int:
    """Return how often a fact is written at most: by itself, with later batches, at the end."""
    if not recipe.rewrite:
        return 1
    return 2 if batches == 1 else 3


def _kept(site: Site) -> int:
    return _STATE_BYTES * site.d_in * site.d_out + _MOMENT_BYTES * site.d_in**2
