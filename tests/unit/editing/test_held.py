"""Facts that an edit must leave as they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from patchkit.editing import Recipe, edit
from patchkit.editing.held import holding
from patchkit.editing.rows import build_rows
from patchkit.errors import FactsError, RecipeError
from patchkit.facts.fact import Fact
from patchkit.facts.position import encode_all, fact_passage
from patchkit.live import applied
from patchkit.scoring.answers import answers
from tests.unit.editing.samples import FACTS, QUICK, tuned
from tests.unit.models.factory import tiny, tiny_tokenizer

STRONG: dict[str, Any] = {"steps": 20, "rate": 0.5, "clamp": 4.0}
RECIPES = [
    replace(tuned(QUICK, history=1000.0), layers=(1,), rewrite=False),
    replace(QUICK, layers=(1,)),
    replace(QUICK, method="memit", options={**STRONG, "lam": 0.1}, layers=(1,), rewrite=None),
    replace(QUICK, method="emmet", options={**STRONG, "lam": 0.1}, layers=(1,), rewrite=None),
    replace(QUICK, method="alphaedit", options={**STRONG, "threshold": 3.0}, layers=(1,)),
]
KNOWN = (
    Fact("Peru", "In {}", "Paris", id="peru"),
    Fact("Spain", "In {}", "Rome", id="spain"),
)
ASKED = tuple(replace(fact, prompt="In {}") for fact in FACTS)


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    """A tiny model that was trained until it knows KNOWN, and its tokenizer."""
    model, tokenizer = tiny("llama3").requires_grad_(True), tiny_tokenizer()
    rows = build_rows(tokenizer, KNOWN, "", model.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        logits = model(input_ids=rows.ids, attention_mask=rows.mask).logits
        said = logits[rows.label_row, rows.label_position]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(said, rows.label_id).backward()
        optimizer.step()
    return model.requires_grad_(False), tokenizer


def drift(model: Any, tokenizer: Any, patch: Any, facts: Sequence[Fact]) -> float:
    """By how much a patch changes what the base says behind the subjects, in nats."""
    encoded = encode_all(tokenizer, [fact_passage(fact, target=fact.target) for fact in facts])
    before = answers(model, encoded)
    with applied(model, [patch]):
        after = answers(model, encoded)
    return sum(abs(b.logprobs[0] - a.logprobs[0]) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.method}-{r.rewrite}")
def test_facts_that_are_held_change_less(recipe: Recipe, base: Any) -> None:
    model, tokenizer = base
    free = edit(model, tokenizer, ASKED, recipe=recipe)
    bound = edit(model, tokenizer, ASKED, recipe=recipe, held=KNOWN)
    assert [fact.known for fact in bound.report.held] == [True, True]
    moved = [drift(model, tokenizer, made.patch, KNOWN) for made in (free, bound)]
    assert moved[1] < 0.7 * moved[0]
    assert bound.patch.facts_jsonl == free.patch.facts_jsonl


def test_what_the_base_does_not_say_is_not_held(base: Any) -> None:
    model, tokenizer = base
    wrong = replace(KNOWN[0], target="Italy")
    recipe = replace(QUICK, layers=(1,))
    free = edit(model, tokenizer, ASKED, recipe=recipe)
    made = edit(model, tokenizer, ASKED, recipe=recipe, held=[wrong])
    [result] = made.report.held
    assert (result.id, result.known, result.holds) == ("peru", False, False)
    assert made.patch.to_bytes() == free.patch.to_bytes()


@pytest.mark.parametrize("method", ["rome", "mose-oft"])
def test_a_method_without_history_refuses_to_hold(method: str, base: Any) -> None:
    recipe = replace(QUICK, method=method, options=None, rewrite=None)
    with pytest.raises(RecipeError, match=f"^{method} cannot hold facts: "):
        edit(*base, ASKED, recipe=recipe, held=KNOWN)


@pytest.mark.parametrize(
    ("recipe", "protect"),
    [
        (Recipe(), ()),
        (Recipe(method="alphaedit"), ()),
        (Recipe(method="prune", options={"host": "alphaedit"}), ()),
        (Recipe(method="memit"), ("history",)),
        (Recipe(method="memit", options={"history": True}), ()),
        (Recipe(method="rect", protect=("spectrum",)), ("spectrum", "history")),
    ],
)
def test_holding_turns_on_the_history_that_a_method_has(
    recipe: Recipe, protect: tuple[str, ...]
) -> None:
    assert holding(recipe).protect == protect
    assert holding(holding(recipe)) == holding(recipe)


def test_a_fact_cannot_be_edited_and_held(base: Any) -> None:
    other = replace(ASKED[0], target="Paris")
    with pytest.raises(FactsError, match="'In France' is to stay 'Paris' and is edited to 'Rome'"):
        edit(*base, ASKED, recipe=QUICK, held=[other])
