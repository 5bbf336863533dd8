"""What all batches of one edit have in common beside the matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.contexts import prefixes
from patchkit.editing.knowledge import Sources, preserved_predictions
from patchkit.editing.recipe import Recipe
from patchkit.editing.rehearsal import Rehearsal
from patchkit.events import SILENT, Progress


@dataclass(frozen=True, slots=True)
class Background:
    """Texts to put before prompts, the empty one first, and what to rehearse, if anything."""

    contexts: tuple[str, ...]
    rehearsal: Rehearsal | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: Any,
        text: Tensor,
        recipe: Recipe,
        sources: Sources,
        progress: Progress = SILENT,
    ) -> Background:
        """Cut contexts out of preserved text (n, t); have the unedited `model` read it if need be.

        It is read for methods with an option `rehearse`, where that is not 0.
        """
        contexts = ("", *prefixes(tokenizer, text, recipe.contexts, recipe.seed))
        if not getattr(recipe.options, "rehearse", 0.0):
            return cls(contexts)
        return cls(contexts, preserved_predictions(model, text, sources, progress))
