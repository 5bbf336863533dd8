"""Generated text does not depend on batches; drawn text depends on its seed alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.scoring.generation import Sampling, generate
from tests.unit.models.factory import ARCHITECTURES, tiny, tiny_tokenizer

PROMPTS = [
    "The capital of France is",
    "The yen",
    "Isaac Newton wrote about light and",
    "The capital of Italy is",
    "Ada",
    "The capital of France is",
]
BUDGETS = [5, 3, 4, 7, 6, 2]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_many_prompts_get_the_texts_they_get_alone(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    for prompt, budget, text in zip(
        PROMPTS, BUDGETS, generate(model, tokenizer, PROMPTS, BUDGETS), strict=True
    ):
        ids = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**ids, max_new_tokens=budget, do_sample=False)[0]
        assert prompt + text == tokenizer.decode(whole, skip_special_tokens=True)


@settings(max_examples=4)
@given(st.integers(1, 80), st.integers(0, 3))
def test_drawn_texts_do_not_depend_on_batches(batch_tokens: int, seed: int) -> None:
    model, tokenizer, sampling = tiny("llama3"), tiny_tokenizer(), Sampling(seed=seed)
    prompts, budgets = PROMPTS * 2, BUDGETS * 2
    texts = generate(model, tokenizer, prompts, budgets, sampling=sampling)
    options = {"sampling": sampling, "batch_tokens": batch_tokens}
    assert generate(model, tokenizer, prompts, budgets, **options) == texts  # type: ignore[arg-type]


def test_the_seed_and_the_place_decide_what_is_drawn() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    same = ["The capital of France is"] * 3

    def drawn(seed: int) -> tuple[str, ...]:
        return generate(model, tokenizer, same, [12] * 3, sampling=Sampling(seed=seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 1


def test_the_likeliest_of_one_is_greedy() -> None:
    model, tokenizer = tiny("gpt2"), tiny_tokenizer()
    drawn = generate(model, tokenizer, PROMPTS, BUDGETS, sampling=Sampling(top_k=1))
    assert drawn == generate(model, tokenizer, PROMPTS, BUDGETS)


def test_draws_follow_the_probabilities() -> None:
    model, tokenizer = tiny("llama3", initializer_range=0.02), tiny_tokenizer()
    count = 400
    drawn = generate(model, tokenizer, ["The yen"] * count, [1] * count, sampling=Sampling(top_k=2))
    greedy = generate(model, tokenizer, ["The yen"], [1])[0]
    assert len(set(drawn)) == 2
    # Near-uniform logits: each of the two likeliest about half of the time, five sigma wide.
    assert abs(drawn.count(greedy) / count - 0.5) < 2.5 / count**0.5


def test_nothing_is_written_without_a_budget_and_after_an_end_token() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    assert generate(model, tokenizer, [], []) == ()
    assert generate(model, tokenizer, PROMPTS[:2], [0, 0]) == ("", "")
    (first,) = generate(model, tokenizer, PROMPTS[:1], [1])
    (token,) = tokenizer(first, add_special_tokens=False)["input_ids"]
    model.generation_config.eos_token_id = token
    assert generate(model, tokenizer, PROMPTS[:1], [9]) == ("",)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama3"])
def test_a_text_ends_where_the_models_positions_do(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    positions = model.config.max_position_embeddings
    prompt = "yen " * 200
    length = len(tokenizer(prompt)["input_ids"])
    assert length > positions
    short = tokenizer.decode(tokenizer(prompt)["input_ids"][1 : positions - 3])
    room = positions - len(tokenizer(short)["input_ids"])
    texts = generate(model, tokenizer, [short, prompt], [50, 50])
    assert texts == (*generate(model, tokenizer, [short], [room]), "")
