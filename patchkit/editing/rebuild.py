"""A patch made again from its facts, for a new base or for other facts.

One rotation writes many facts together, and none of its planes belongs to one fact alone. Taking a
fact out, or changing one, therefore means to edit again: with the recipe of the patch, so that the
same facts on the same base give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from patchkit.editing.dataset_text import DatasetText
from patchkit.editing.engine import edit
from patchkit.editing.recipe import Recipe, recipe_from
from patchkit.editing.report import Edit
from patchkit.errors import FactsError, SolveError
from patchkit.events import SILENT, Progress
from patchkit.factors.compression import COMPRESSED
from patchkit.facts.fact import Fact
from patchkit.facts.jsonl import parse_jsonl
from patchkit.patch.metadata import PatchMetadata
from patchkit.patch.patch import Patch
from patchkit.tensors.checkpoint import Checkpoint


def recipe_of(metadata: PatchMetadata) -> Recipe:
    """Return the settings a patch was made with, the default ones where it records none.

    RecipeError for settings that this version does not know.
    """
    given = {key: value for key, value in metadata.recipe.items() if key != COMPRESSED}
    return recipe_from(given, "the recipe of the patch") if given else Recipe()


def rebuild(
    patch: Patch,
    facts: Sequence[Fact] | None,
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe | None = None,
    corpus: Path | DatasetText | None = None,
    cache_dir: Path | None = None,
    skip_known: bool = False,
    keep: Callable[[Patch], object] | None = None,
    progress: Progress = SILENT,
) -> Edit:
    """Edit `model` again with the facts and the recipe of `patch`.

    `facts` replace those of the patch, None keeps them. The report says which facts the model
    reaches and which it knew before; with `skip_known` the latter take no part. Other arguments,
    and errors, are those of `edit`. Also raises FactsError for a patch that does not carry its
    facts, RecipeError for a recipe of another version, and SolveError for a patch made on top
    of another, or composed at other strengths or of undone patches, which facts alone do not say.
    """
    if patch.metadata.after:
        raise SolveError(
            f"the patch was made on top of {patch.metadata.after[0][:15]}…, which is not in it",
            hint="compose both first, in the order in which they were made",
        )
    changed = [leaf for leaf in patch.metadata.leaves if leaf.strength != 1.0 or leaf.inverted]
    if changed:
        raise SolveError(
            f"the patch holds {changed[0].digest[:15]}… at another strength or undone, which "
            "its facts do not say",
            hint="rebuild the patches it was composed of, then compose them again",
        )
    return edit(
        model,
        tokenizer,
        facts_of(patch) if facts is None else facts,
        checkpoint=checkpoint,
        recipe=recipe_of(patch.metadata) if recipe is None else recipe,
        corpus=corpus,
        cache_dir=cache_dir,
        skip_known=skip_known,
        keep=keep,
        progress=progress,
    )


def facts_of(patch: Patch, name: str = "the patch") -> tuple[Fact, ...]:
    """Return the facts that a patch carries; FactsError if it carries none."""
    if patch.facts_jsonl is None:
        raise FactsError(
            f"{name} does not carry the text of its facts",
            hint="give the facts file that it was made from",
        )
    return parse_jsonl(patch.facts_jsonl, name=name).facts
