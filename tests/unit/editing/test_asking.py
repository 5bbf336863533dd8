"""Facts asked step after step: whose turn it is, what it costs, what asking again keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.editing import edit, edit_sequence
from patchkit.editing.asking import Asked, Turns
from patchkit.editing.recipe import Recipe
from patchkit.editing.rows import build_rows, keys_in_contexts
from patchkit.editing.state import borrowed, install
from patchkit.errors import RecipeError
from patchkit.facts.fact import Fact
from patchkit.live import applied
from patchkit.parallel import ALONE, Workers
from tests.unit.editing.samples import FACTS, QUICK, loaded, tuned
from tests.unit.models.factory import ARCHITECTURES, tiny, tiny_tokenizer

CONTEXTS = ("", "It is said. ", "A long time ago they wrote: ")
FIVE = (*FACTS, Fact("Spain", "{} lies in", "Japan"), Fact("Rome", "The river of {} is the", "Po"))


@given(count=st.integers(1, 40), most=st.integers(1, 40), contexts=st.integers(1, 5))
def test_every_fact_has_its_turn_in_every_context(count: int, most: int, contexts: int) -> None:
    turns = Turns(count, contexts, most)
    rounds = max(1, contexts - 1)
    asked: dict[int, list[int]] = {fact: [] for fact in range(count)}
    for step in range(turns.all * rounds):
        pairs = turns.at(step)
        assert pairs[0][1] == 0
        for turn, context in pairs:
            assert 0 < len(turns.facts(turn)) <= most
            for fact in turns.facts(turn):
                asked[fact].append(context)
    every = sorted([0] * rounds + list(range(1, contexts)))
    assert all(sorted(found) == every for found in asked.values())


def rows_of(model: Any) -> list[Any]:
    return [build_rows(tiny_tokenizer(), FIVE, text, model.device) for text in CONTEXTS]


def asked(model: Any, most: int, workers: Workers = ALONE, first: int = 0) -> Asked:
    return Asked.of(model, rows_of(model), first=first, steps=6, most=most, workers=workers)


def literal(model: Any, facts: range, context: int, floor: float) -> float:
    """Summed loss of these facts, one at a time, each the mean over its target's tokens."""
    tokenizer, total = tiny_tokenizer(), 0.0
    for fact in (FIVE[index] for index in facts):
        rows = build_rows(tokenizer, [fact], CONTEXTS[context], model.device)
        chances = model(input_ids=rows.ids).logits[0].log_softmax(-1)
        said = chances[rows.label_position, rows.label_id]
        total += max(floor, -float(said.mean()))
    return total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_loss_is_that_of_the_bare_prompt_and_one_context(architecture: str) -> None:
    model = tiny(architecture)
    found = asked(model, most=5)
    for step, context in enumerate((1, 2, 1)):
        expected = sum(literal(model, range(5), index, 1.0) for index in (0, context)) / 2
        assert float(found.loss(step, 1.0)) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_those_whose_turn_it_is_stand_for_the_others() -> None:
    model = tiny("llama3")
    found = asked(model, most=2)
    for step, (facts, context) in enumerate(
        [(range(0, 5, 3), 1), (range(1, 5, 3), 1), (range(2, 5, 3), 1), (range(0, 5, 3), 2)]
    ):
        part = sum(literal(model, facts, index, 0.0) for index in (0, context)) / 2
        assert float(found.loss(step, 0.0)) == pytest.approx(part * 5 / len(facts), rel=1e-4)


@torch.no_grad()
def test_the_shares_of_processes_add_up() -> None:
    model = tiny("llama3")
    whole = asked(model, most=3)
    shares = [asked(model, most=3, workers=Workers(rank, 4)) for rank in range(4)]
    for step in range(3):
        total = sum(float(share.loss(step, 0.1)) for share in shares)
        assert total == pytest.approx(float(whole.loss(step, 0.1)), rel=1e-5)


def after(base: Any, recipe: Recipe) -> float:
    """Summed negative log-probability of the first two facts once the third has been written."""
    model, tokenizer, checkpoint = base
    done = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=recipe)
    rows = build_rows(tokenizer, FACTS[:2], "", model.device)
    with applied(model, done.patch, checkpoint=checkpoint), torch.no_grad():
        one = Asked.of(model, [rows], first=0, steps=1, most=2)
        return float(one.loss(0, 0.0))


def test_what_is_asked_again_is_kept(tmp_path: Path) -> None:
    base = loaded(tmp_path / "base")
    recipe = tuned(replace(QUICK, layers=(1,), batch=2, rewrite=False), history=0.0, floor=0.0)
    forgetful, recalling = (after(base, tuned(recipe, recall=most)) for most in (0, 1))
    assert recalling < forgetful - 0.1


def test_one_batch_has_nothing_to_ask_again(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")

    def factor(most: int) -> Any:
        recipe = tuned(QUICK, recall=most)
        done = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=recipe)
        ((found,),) = done.patch.factors.values()
        return found

    one, two = factor(0), factor(100)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)


def test_deeper_matrices_remember_the_keys_that_they_now_see(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = replace(QUICK, layers=(0, 1), rewrite=False)
    (stage,) = edit_sequence(
        model, tokenizer, FACTS, [3], checkpoint=checkpoint, recipe=replace(recipe, batch=3)
    )
    states = stage.written.states
    sites = [state.site for state in states.values()]
    rows = [build_rows(tokenizer, FACTS, "", model.device)]
    with borrowed(model, sites):
        before = keys_in_contexts(model, sites, rows)
        install(model, states)
        now = keys_in_contexts(model, sites, rows)
    for layer, state in states.items():
        assert torch.allclose(state.keys[:, 0], now[layer][:, 0], atol=1e-5)
    assert not torch.allclose(before[1], now[1], atol=1e-3)


def test_a_negative_number_of_facts_is_refused() -> None:
    with pytest.raises(RecipeError, match="recall"):
        tuned(QUICK, recall=-1)
