"""What a patch must be to be made again from its facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from patchkit.editing.rebuild import facts_of, rebuild, recipe_of
from patchkit.editing.recipe import Recipe
from patchkit.errors import FactsError, RecipeError, SolveError
from patchkit.factors.compression import COMPRESSED
from patchkit.patch.metadata import Leaf, PatchMetadata
from patchkit.patch.patch import Patch
from tests.unit.patch.samples import ZERO, sample


def changed(**fields: Any) -> Patch:
    patch = sample()
    return Patch(replace(patch.metadata, **fields), patch.factors, patch.facts_jsonl)


def test_the_recipe_of_a_patch_is_the_one_it_was_made_with() -> None:
    recipe = Recipe(layers=(3,), batch=7, seed=5)
    metadata: PatchMetadata = changed(recipe=recipe.as_dict()).metadata
    assert recipe_of(PatchMetadata.from_json(metadata.to_json())) == recipe
    history = {**recipe.as_dict(), COMPRESSED: [{"tolerance": 1e-6, "bound": 1e-7}]}
    assert recipe_of(replace(metadata, recipe=history)) == recipe
    assert recipe_of(replace(metadata, recipe={})) == Recipe()


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(RecipeError, match="epsilon"):
        recipe_of(sample().metadata)


def test_facts_come_out_of_the_patch() -> None:
    assert [fact.subject for fact in facts_of(sample())] == ["Österreich", "Kyōto"]
    with pytest.raises(FactsError, match="does not carry"):
        facts_of(replace(sample(), facts_jsonl=None))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"after": (ZERO,)}, "on top of"),
        ({"after": (), "leaves": (Leaf(ZERO, 0.5),)}, "another strength or undone"),
        ({"after": (), "leaves": (Leaf(ZERO, 1.0, True),)}, "another strength or undone"),
    ],
)
def test_what_facts_alone_do_not_say_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SolveError, match=words):
        rebuild(changed(**fields), None, None, None)  # type: ignore[arg-type]
