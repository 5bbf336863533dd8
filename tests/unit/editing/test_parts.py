"""Corpora, contexts, layers, recipes: the pieces an edit is put together from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.editing.capture import capture, module_of, weight_of
from patchkit.editing.contexts import prefixes
from patchkit.editing.corpus import file_corpus, self_corpus
from patchkit.editing.layers import choose_layers
from patchkit.editing.protect import Protection
from patchkit.editing.recipe import Recipe, read_recipe, recipe_from
from patchkit.editing.rows import alike, build_rows
from patchkit.editing.statistics import gather
from patchkit.errors import FactsError, RecipeError
from patchkit.facts.fact import Fact
from patchkit.tensors.digests import canonical_json
from patchkit.tensors.layout import sites
from tests.unit.editing.samples import FACTS
from tests.unit.models.factory import ARCHITECTURES, tiny, tiny_tokenizer


def test_the_bases_own_text_depends_on_the_seed_alone() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    first = self_corpus(model, tokenizer, rows=5, length=7, seed=1)
    torch.manual_seed(99)
    again = self_corpus(model, tokenizer, rows=5, length=7, seed=1)
    other = self_corpus(model, tokenizer, rows=5, length=7, seed=2)
    assert first.shape == (5, 7)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sampling_follows_the_models_own_distribution() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    text = self_corpus(model, tokenizer, rows=3000, length=2, seed=0)
    found = torch.bincount(text[:, 1], minlength=320) / len(text)
    expected = model(input_ids=text[:1, :1]).logits[0, -1].softmax(-1)
    assert float((found - expected).abs().max()) < 0.03


def test_windows_of_a_text_begin_where_documents_do(tmp_path: Path) -> None:
    tokenizer, path = tiny_tokenizer(), tmp_path / "text.txt"
    documents = [f"The capital of place {number} is Rome." for number in range(20)]
    path.write_text(" \n\t\n\n".join(documents) + "\n\n", "utf-8")
    found = file_corpus(path, tokenizer, rows=8, length=4)
    firsts = [tuple(tokenizer(text)["input_ids"][:4]) for text in documents]
    assert found.shape == (8, 4)
    assert {tuple(row) for row in found.tolist()} <= set(firsts)
    every = file_corpus(path, tokenizer, rows=1000, length=4)
    assert len(every) == sum(len(tokenizer(text)["input_ids"]) for text in documents) // 4


def test_a_text_of_one_document_is_cut_evenly(tmp_path: Path) -> None:
    tokenizer, path = tiny_tokenizer(), tmp_path / "text.txt"
    path.write_text(("The capital of Italy is Rome. " * 30).strip(), "utf-8")
    ids = tokenizer(path.read_text("utf-8"))["input_ids"]
    found = file_corpus(path, tokenizer, rows=5, length=7)
    places = [index * (len(ids) - 6) // 5 for index in range(5)]
    assert found.tolist() == [ids[at : at + 7] for at in places]


@pytest.mark.parametrize("text", ["", "\n \n", "Rome"])
def test_a_text_shorter_than_a_window_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text, "utf-8")
    with pytest.raises(FactsError, match="fewer than one window of 64"):
        file_corpus(tmp_path / "text.txt", tiny_tokenizer(), rows=5, length=64)


def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("Brasília. ".encode("latin-1") * 40)
    with pytest.raises(FactsError, match=r"text\.txt is not UTF-8: .* at byte 5"):
        file_corpus(tmp_path / "text.txt", tiny_tokenizer(), rows=5, length=8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_captured_is_what_the_matrix_saw(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    rows = build_rows(tokenizer, FACTS, "Before this.", model.device)
    found = sites(model)
    flows = capture(model, rows.ids, rows.mask, found)
    for site in found:
        flow = flows[site.layer].at(rows.last)
        bias = module_of(model, site).bias if site.has_bias else 0.0
        values = flow.keys @ weight_of(model, site).T + bias
        torch.testing.assert_close(values, flow.values, rtol=1e-4, atol=1e-4)


def test_the_moment_is_the_mean_outer_product() -> None:
    model, tokenizer = tiny("qwen3"), tiny_tokenizer()
    text = self_corpus(model, tokenizer, rows=70, length=6, seed=0)
    found = sites(model)[1]
    statistics = gather(model, text, [found])[1]
    keys = capture(model, text, torch.ones_like(text), [found])[1].keys.flatten(0, 1)
    torch.testing.assert_close(statistics.moment, keys.T @ keys / len(keys), rtol=1e-4, atol=1e-5)
    assert statistics.tokens == len(keys) == 420


def test_contexts_are_sentences_without_braces() -> None:
    tokenizer = tiny_tokenizer()
    text = torch.tensor([tokenizer("The {capital} of Italy is Rome. " * 6)["input_ids"]] * 4)
    found = prefixes(tokenizer, text, 3, seed=5)
    assert found == prefixes(tokenizer, text, 3, seed=5)
    assert len(found) == 3
    assert all(prefix.endswith(".") and "{" not in prefix for prefix in found)


def test_the_layer_that_recalls_is_chosen() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    found = sites(model)
    for site in found:
        weight_of(model, site).mul_(20.0 if site.layer == 1 else 0.01)
    # With nothing behind the subject, its last token is the one that answers.
    facts = [Fact(fact.subject, "In {}", fact.target) for fact in FACTS]
    choice = choose_layers(model, tokenizer, facts, found)
    assert choice.layers == (1,)
    effects = {row.layer: row.alone for row in choice.evidence}
    assert effects[1] > 10 * max(abs(effects[0]), abs(effects[2]))
    total = choice.evidence[-1].together
    assert choice.evidence[1].restored == pytest.approx(total, rel=0.2)


def test_choosing_leaves_no_hook_behind() -> None:
    model, tokenizer = tiny("opt"), tiny_tokenizer()
    ids = torch.tensor([tokenizer(FACTS[0].text)["input_ids"]])
    before = model(input_ids=ids).logits
    choose_layers(model, tokenizer, FACTS, sites(model))
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_recipe_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("layers = [3, 4]\n[options]\nsteps = 7\nrate = 1\n", "utf-8")
    assert read_recipe(path) == Recipe(layers=(3, 4), options={"steps": 7, "rate": 1.0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bach = 7", "unknown setting 'bach'"),
        ("batch = 'many'", "batch the value 'many'"),
        ("batch = true", "batch the value True"),
        ("layers = 3", "layers the value 3"),
        ("layers = [3, 'x']", "layers the value"),
        ("options = 3", "options"),
        ("[options]\nstepps = 7", "options of rotation has the unknown setting 'stepps'"),
        ("[options]\nsteps = 7.5", "options of rotation gives steps the value 7.5"),
        ("[protection]\nnull = 'maybe'", "null the value 'maybe'"),
        ("method = 'rotatoin'", "no method 'rotatoin'"),
        ("protect = ['everything']", "no protection 'everything'"),
        ("protect = ['history']", "already"),
        ("steps = [", "cannot be read as a recipe"),
    ],
)
def test_a_bad_recipe_is_explained(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch": 0}, "batch"),
        ({"options": {"softness": 0.0}}, "softness"),
        ({"storage": "int4"}, "storage"),
        ({"options": 3}, "options"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe(**wrong)


def test_a_near_miss_is_answered_with_the_name_that_was_meant() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(options={"sofntess": 1.0})
    assert caught.value.hint == "did you mean softness or steps?"


@given(
    softness=st.floats(0.01, 10),
    layers=st.none() | st.lists(st.integers(0, 80), min_size=1).map(tuple),
    protect=st.sampled_from([(), ("spectrum",), ("nullspace", "spectrum")]),
    energy=st.floats(0.01, 0.99),
)
def test_a_recipe_survives_the_metadata_of_a_patch(
    softness: float, layers: tuple[int, ...] | None, protect: tuple[str, ...], energy: float
) -> None:
    recipe = Recipe(
        options={"softness": softness},
        layers=layers,
        protect=protect,
        protection=Protection(energy=energy),
    )
    assert recipe_from(json.loads(canonical_json(recipe.as_dict()))) == recipe


@given(lengths=st.lists(st.integers(1, 30), max_size=80), most=st.integers(1, 40))
def test_rows_are_cut_into_parts_of_alike_length(lengths: list[int], most: int) -> None:
    parts = alike(lengths, most)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert all(0 < len(part) <= most for part in parts)
    flat = [lengths[index] for part in parts for index in part]
    assert flat == sorted(lengths)
    assert sum(len(part) < min(most, 16) for part in parts) <= 1 + len(lengths) // most


def test_long_rows_do_not_make_short_ones_pay() -> None:
    parts = alike([2] * 20 + [9] * 20, 100)
    assert [len(part) for part in parts] == [20, 20]
    assert len(alike([2] * 20 + [9] * 3, 100)) == 1
