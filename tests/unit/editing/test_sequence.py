"""A sequence of edits that is looked at on its way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchkit.editing import Recipe, edit, edit_sequence
from patchkit.errors import FactsError
from patchkit.facts.fact import Fact
from patchkit.patch.patch import Patch
from tests.unit.editing.samples import FACTS, QUICK, loaded

MORE = (*FACTS, Fact("Italy", "The capital of {} is", "Paris"))
HOSTED: dict[str, Any] = {"host_options": {"steps": 3}}
RECIPES = [
    replace(QUICK, layers=(1,), batch=2),
    replace(QUICK, method="memit", options={"steps": 3, "history": True}, layers=(0, 1), batch=2),
    replace(QUICK, method="prune", options=HOSTED, layers=(1,), batch=2, rewrite=None),
    replace(QUICK, method="mose-oft", options={"steps": 2}, layers=(1,), batch=2, rewrite=None),
]


def patches_of(facts: Any, counts: list[int], base: Any, recipe: Recipe) -> dict[int, Patch]:
    model, tokenizer, checkpoint = base
    stages = edit_sequence(model, tokenizer, facts, counts, checkpoint=checkpoint, recipe=recipe)
    return {stage.edits: stage.patch for stage in stages}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.method)
def test_a_stage_is_the_edit_of_its_facts_alone(recipe: Recipe, tmp_path: Path) -> None:
    model, tokenizer, checkpoint = base = loaded(tmp_path / "base")
    found = patches_of(MORE, [4, 1, 3], base, recipe)
    assert list(found) == [1, 3, 4]
    for count, patch in found.items():
        kept: list[Patch] = []
        edit(
            model, tokenizer, MORE[:count],
            checkpoint=checkpoint, recipe=recipe, keep=kept.append,
        )  # fmt: skip
        assert patch.to_bytes() == kept[0].to_bytes()


def test_the_model_has_its_own_weights_between_stages(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = []
    for stage in edit_sequence(
        model, tokenizer, MORE, [1, 4], checkpoint=checkpoint, recipe=RECIPES[0]
    ):
        counts.append(stage.written.count)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        assert 0 < stage.written.seconds < stage.seconds
    assert counts == [0, 4]


def test_a_sequence_goes_on_from_what_was_written(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    common: dict[str, Any] = {"checkpoint": checkpoint, "recipe": RECIPES[0]}
    stages = list(edit_sequence(model, tokenizer, MORE, [2, 4], **common))
    [again] = edit_sequence(
        model, tokenizer, MORE, [4], start=lambda states: stages[0].written, **common
    )
    assert again.patch.to_bytes() == stages[1].patch.to_bytes()
    assert again.seconds > stages[0].written.seconds


def test_counts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    common: dict[str, Any] = {"checkpoint": checkpoint, "recipe": RECIPES[0]}
    for wrong in (0, 5):
        with pytest.raises(FactsError, match=f"after {wrong} facts: there are 4, 0 of them"):
            next(edit_sequence(model, tokenizer, MORE, [2, wrong], **common))
    [stage] = edit_sequence(model, tokenizer, MORE, [2], **common)
    with pytest.raises(FactsError, match="after 1 facts: there are 4, 2 of them written"):
        next(
            edit_sequence(model, tokenizer, MORE, [1], start=lambda states: stage.written, **common)
        )


def test_no_facts_make_no_sequence(tmp_path: Path) -> None:
    model, tokenizer, _ = loaded(tmp_path / "base")
    with pytest.raises(FactsError, match="no facts"):
        next(edit_sequence(model, tokenizer, [], [1]))
