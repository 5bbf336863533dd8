"""What is measured on text, by hand: free answers, n-gram entropy, TF-IDF cosine."""

import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import ExtraMissing
from patchkit.facts.fact import Fact
from patchkit.facts.snippets import Snippets
from patchkit.scoring.texts import Vectors, answered, ngram_entropy
from patchkit.scoring.writing import LEAST, LENGTH, consistency, fluency, write_texts
from tests.unit.models.factory import tiny, tiny_tokenizer


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" Paris", True),
        ("Paris, the city", True),
        (" PARIS\n", True),
        (" New  York is", True),
        (" Parisian", False),
        (" the city of Paris", False),
        ("", False),
        (" New Yorker", False),
    ],
)
def test_an_answer_stands_at_the_beginning_and_ends_with_its_word(text: str, right: bool) -> None:
    assert answered(text, ("Paris", "New York")) is right


def test_the_entropy_of_a_text_that_repeats_nothing() -> None:
    # Words a b c d: three 2-grams and two 3-grams, all different.
    assert ngram_entropy("a b c d") == pytest.approx((2 / 3 * math.log2(3) + 4 / 3 * 1.0) / 2)


def test_the_entropy_of_a_text_that_repeats() -> None:
    # 2-grams: (a b) twice, (b a) once; 3-grams: (a b a), (b a b) once each.
    two = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b") == pytest.approx((2 / 3 * two + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("no no no no no") == 0
    assert ngram_entropy("word") == ngram_entropy("") == 0


def test_punctuation_is_a_word_of_its_own() -> None:
    assert ngram_entropy("a, b!") == ngram_entropy("a c b d")


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_entropy_is_between_nothing_and_all_different(words: list[str]) -> None:
    found = ngram_entropy(" ".join(words))
    assert 0 <= found <= math.log2(max(1, len(words))) + 1e-9


FACTS = [
    Fact("France", "The capital of {} is", "Rome", generation=("{} is", "{} has"), reference="P/Q"),
    Fact("Italy", "The capital of {} is", "Bari"),
    Fact("Japan", "The yen of {} is", "gold", generation=("In {}",), reference="P/none"),
]


def test_consistency_is_the_cosine_of_weighted_words() -> None:
    pytest.importorskip("sklearn")
    vocabulary = {"red": 0, "blue": 1, "green": 2}
    snippets = Snippets({"P/Q": ("red blue",), "P/empty": ()}, vocabulary, (1.0, 2.0, 5.0))
    vectors = Vectors(snippets)
    # (1, 2, 0) against (1·2, 2, 0), each of length 1.
    expected = (1 * 2 + 2 * 2) / (math.sqrt(5) * math.sqrt(8))
    assert vectors.consistency("Red red blue, unknown", "P/Q") == pytest.approx(expected)
    assert vectors.consistency("green", "P/Q") == 0
    assert vectors.consistency("red", "P/empty") is None
    assert vectors.consistency("red", None) is None


def test_weights_are_learnt_from_the_snippets_where_none_are_given() -> None:
    pytest.importorskip("sklearn")
    snippets = Snippets({"a": ("common rare",), "b": ("common other",)})
    vectors = Vectors(snippets)
    rare, common = vectors.consistency("rare", "a"), vectors.consistency("common", "a")
    # scikit-learn's smooth weights: 1 + ln((1 + texts) / (1 + texts with the word)).
    weight = 1 + math.log(3 / 2)
    assert rare == pytest.approx(weight / math.hypot(weight, 1))
    assert common == pytest.approx(1 / math.hypot(weight, 1))


def test_figures_of_texts_are_means_over_facts() -> None:
    before = (("a b c d", "no no no"), (), ("a b c d",))
    after = (("no no no", "no no no"), (), ("a b c d",))
    found = fluency(before, after)
    free = ngram_entropy("a b c d")
    assert (found.base, found.patched) == (pytest.approx(0.75 * free), pytest.approx(free / 2))
    assert found.count == 2


def test_consistency_joins_a_facts_texts_and_skips_facts_without_reference_texts() -> None:
    pytest.importorskip("sklearn")
    snippets = Snippets({"P/Q": ("red", "blue")}, {"red": 0, "blue": 1}, (1.0, 1.0))
    before, after = (("red", "red"), (), ("x",)), (("red", "blue"), (), ("x",))
    found = consistency(FACTS, before, after, Vectors(snippets))
    assert (found.base, found.patched) == (pytest.approx(1 / math.sqrt(2)), pytest.approx(1))
    assert found.count == 1


def test_without_scikit_learn_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ExtraMissing) as caught:
        Vectors(Snippets({}))
    assert "patchkit-lm[bench]" in (caught.value.hint or "")


def test_texts_follow_their_prompts_and_are_drawn_by_the_seed() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    texts = write_texts(model, tokenizer, FACTS, seed=3)
    assert [len(written) for written in texts] == [2, 0, 1]
    for fact, written in zip(FACTS, texts, strict=True):
        for prompt, text in zip(fact.generation, written, strict=True):
            assert text.startswith(prompt)
            assert len(text) > len(prompt)
    assert texts == write_texts(model, tokenizer, FACTS, seed=3, batch_tokens=150)
    assert texts != write_texts(model, tokenizer, FACTS, seed=4)


def test_texts_have_the_published_length_prompt_included(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def generate(
        _: object, __: object, prompts: list[str], budgets: list[int], **___: object
    ) -> Any:
        asked.extend(budgets)
        return [""] * len(prompts)

    monkeypatch.setattr("patchkit.scoring.writing.generate", generate)
    tokenizer, long = tiny_tokenizer(), " ".join(["yen"] * 60)
    facts = [FACTS[2], Fact("a", "{} is", "b", generation=(long,))]
    write_texts(tiny("llama3"), tokenizer, facts)
    assert asked == [LENGTH - len(tokenizer("In Japan")["input_ids"]), LEAST]
