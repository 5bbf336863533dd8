"""Facts that an edit must leave as they are, protected as if they had been written before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patchkit.editing.recipe import Recipe
from patchkit.errors import FactsError, RecipeError
from patchkit.facts.fact import Fact


def holding(recipe: Recipe) -> Recipe:
    """Return the recipe with earlier facts' keys counted as preserved knowledge.

    Raises RecipeError for a method that weighs what it writes against no earlier fact.
    """
    options = getattr(recipe.options, "host_options", recipe.options)
    if getattr(options, "history", False) or "history" in recipe.protect:
        return recipe
    try:
        return replace(recipe, protect=(*recipe.protect, "history"))
    except RecipeError as error:
        raise RecipeError(
            f"{recipe.method} cannot hold facts: {error.message}",
            hint="rotation, memit, emmet, alphaedit and mose hold facts",
        ) from error


def check_held(held: Sequence[Fact], facts: Sequence[Fact]) -> None:
    """FactsError for a fact to hold that `facts` ask to change."""
    asked = {fact.text: fact.target for fact in facts}
    for fact in held:
        target = asked.get(fact.text, fact.target)
        if target != fact.target:
            raise FactsError(
                f"{fact.text!r} is to stay {fact.target!r} and is edited to {target!r}",
                hint="take it out of one of the two files",
            )
