"""Values optimised together against the published loop, one fact at a time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from patchkit.editing.batch import Batch
from patchkit.editing.capture import module_of
from patchkit.editing.place import Place
from patchkit.editing.targets import TargetOptions, groups_of, optimise
from patchkit.errors import SolveError
from patchkit.facts.fact import Fact
from patchkit.tensors.layout import blocks, sites
from tests.unit.editing import literal
from tests.unit.editing.samples import FACTS
from tests.unit.models.factory import tiny, tiny_tokenizer

CONTEXTS = ("", "Before this, some words.")
OPTIONS = TargetOptions(steps=6, rate=0.3, clamp=0.9)


def exact(architecture: str) -> Any:
    """A tiny model in fp64: Adam turns the rounding of small gradients into whole steps."""
    return tiny(architecture).double()


def together(place: Place, batch: Batch, options: TargetOptions) -> Tensor:
    return optimise(batch, groups_of(batch, options), place, options, lambda step, of: None)


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "gptj", "gpt_neox", "opt", "phi3"])
def test_facts_optimised_together_are_those_optimised_alone(architecture: str) -> None:
    model, tokenizer = exact(architecture), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS, CONTEXTS, model.device)
    site = sites(model)[1]
    found = together(Place(model, site, stream=True), batch, OPTIONS)
    taken = []
    for index in range(len(FACTS)):
        alone, steps = literal.value(model, blocks(model)[1], batch, index, OPTIONS)
        taken.append(steps)
        torch.testing.assert_close(found[index], alone, rtol=1e-5, atol=1e-5)
    assert any(steps > 0 for steps in taken)


def test_facts_stop_one_by_one() -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS[:2], CONTEXTS, model.device)
    options = TargetOptions(steps=9, rate=1.0, clamp=10.0, stop=5.5, kl=0.0, decay=0.0)
    found = together(Place(model, sites(model)[1], stream=True), batch, options)
    taken = []
    for index in range(2):
        alone, steps = literal.value(model, blocks(model)[1], batch, index, options)
        torch.testing.assert_close(found[index], alone, rtol=1e-5, atol=1e-5)
        taken.append(steps)
    assert taken[0] < taken[1]


@pytest.mark.parametrize("architecture", ["llama3", "gemma3", "opt"])
@pytest.mark.parametrize("published", [False, True])
def test_a_matrix_s_own_output_can_be_the_value(architecture: str, published: bool) -> None:
    model, tokenizer = exact(architecture), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS, CONTEXTS, model.device)
    site = sites(model)[1]
    options = replace(OPTIONS, published_scales=published)
    found = together(Place(model, site, stream=False), batch, options)
    for index in range(len(FACTS)):
        alone, _ = literal.value(model, module_of(model, site), batch, index, options)
        torch.testing.assert_close(found[index], alone, rtol=1e-5, atol=1e-5)


def test_the_last_block_can_be_the_place() -> None:
    model, tokenizer = exact("opt"), tiny_tokenizer()
    # Behind the last block only what the subject itself predicts can change.
    facts = [Fact("France", "Not Italy but {}", "Rome")]
    batch = Batch.of(tokenizer, facts, CONTEXTS, model.device)
    found = together(Place(model, sites(model)[-1], stream=True), batch, OPTIONS)
    alone, _ = literal.value(model, blocks(model)[-1], batch, 0, OPTIONS)
    torch.testing.assert_close(found[0], alone, rtol=1e-5, atol=1e-5)


def test_a_shift_stays_within_its_clamp() -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS, CONTEXTS, model.device)
    place = Place(model, sites(model)[1], stream=True)
    own = place.values(batch.contexts[0])
    found = together(place, batch, replace(OPTIONS, clamp=0.2, steps=12, stop=0.0))
    ratio = (found - own).norm(dim=1) / own.norm(dim=1)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.2), rtol=1e-4, atol=1e-4)


def test_facts_with_one_key_get_one_value() -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    kin = (
        Fact("Ada Lovelace", "{} was born in", "Italy"),
        Fact("France", "The capital of {} is", "Rome"),
        Fact("Ada Lovelace", "{} died in", "Rome"),
    )
    batch = Batch.of(tokenizer, kin, CONTEXTS, model.device)
    assert groups_of(batch, OPTIONS) == [[0, 2], [1]]
    assert groups_of(batch, replace(OPTIONS, joint=False)) == [[0], [1], [2]]
    place = Place(model, sites(model)[1], stream=True)
    found = together(place, batch, replace(OPTIONS, steps=9, clamp=4.0))
    assert found.shape == (2, 32)
    alone, _ = literal.value(
        model, blocks(model)[1], batch, 1, replace(OPTIONS, steps=9, clamp=4.0)
    )
    torch.testing.assert_close(found[1], alone, rtol=1e-5, atol=1e-5)


def test_many_facts_are_optimised_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS, CONTEXTS, model.device)
    place = Place(model, sites(model)[1], stream=True)
    whole = together(place, batch, OPTIONS)
    monkeypatch.setattr("patchkit.editing.targets._weight", lambda batch, place: 1 << 29)
    told: list[tuple[int, int]] = []
    parts = optimise(
        batch, groups_of(batch, OPTIONS), place, OPTIONS, lambda step, of: told.append((step, of))
    )
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    assert told == [(step, 12) for step in range(1, 13)]


def test_facts_that_are_done_are_run_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS[:2], CONTEXTS, model.device)
    options = TargetOptions(steps=9, rate=1.0, clamp=10.0, stop=5.5)
    run: list[int] = []
    logits = Place.logits

    def counted(place: Place, replay: Any, rows: Any, *rest: Any) -> Tensor:
        run.append(rows.count)
        return logits(place, replay, rows, *rest)

    monkeypatch.setattr(Place, "logits", counted)
    found = together(Place(model, sites(model)[1], stream=True), batch, options)
    taken = []
    for index in range(2):
        alone, steps = literal.value(model, blocks(model)[1], batch, index, options)
        torch.testing.assert_close(found[index], alone, rtol=1e-5, atol=1e-5)
        taken.append(steps)
    assert taken[0] < taken[1] == options.steps - 1
    passes = len(CONTEXTS) + 1
    both, left = taken[0] + 1, taken[1] - taken[0] - 1
    assert run == [2] * (1 + both * passes) + [1] * (left * passes)


def test_several_layers_of_a_post_norm_model_are_refused() -> None:
    model = tiny("gemma2")
    found = sites(model)
    assert not Place.behind(model, found[:1]).stream
    with pytest.raises(SolveError, match="2 layers were asked for"):
        Place.behind(model, found[:2])
    assert Place.behind(tiny("gemma3_multimodal"), found[:1]).stream is False
    assert Place.behind(tiny("qwen3"), found[:2]).stream


def test_rows_are_chosen_with_their_labels() -> None:
    model, tokenizer = exact("llama3"), tiny_tokenizer()
    batch = Batch.of(tokenizer, FACTS, CONTEXTS, model.device)
    rows, chosen = batch.contexts[1], batch.contexts[1].only([2, 0])
    for new, old in enumerate([2, 0]):
        here, there = chosen.label_row == new, rows.label_row == old
        assert torch.equal(chosen.label_id[here], rows.label_id[there])
        assert torch.equal(chosen.label_position[here], rows.label_position[there])
    assert torch.equal(chosen.last, rows.last[[2, 0]])
