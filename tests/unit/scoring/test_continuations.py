"""Continuations are the model's own greedy ones."""

import pytest
import torch

from patchkit.scoring.continuations import continuation
from tests.unit.models.factory import ARCHITECTURES, tiny, tiny_tokenizer

PROMPT = "The capital of France is"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_text_is_what_generate_gives(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    row = tokenizer(PROMPT, return_tensors="pt")
    ids = model.generate(**row, max_new_tokens=8, do_sample=False)[0]
    found = continuation(model, tokenizer, PROMPT, max_tokens=8)
    assert PROMPT + found.text == tokenizer.decode(ids, skip_special_tokens=True)


def test_candidates_are_the_likeliest_tokens_best_first() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    expected = logits.softmax(-1).sort(descending=True)
    found = continuation(model, tokenizer, PROMPT, top=3)
    assert [candidate.token for candidate in found.candidates] == expected.indices[:3].tolist()
    assert [candidate.probability for candidate in found.candidates] == pytest.approx(
        expected.values[:3].tolist(), rel=1e-4
    )
    assert found.candidates[0].text == tokenizer.decode([found.candidates[0].token])


def test_an_end_token_ends_the_text() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    first = continuation(model, tokenizer, PROMPT).candidates[0].token
    model.generation_config.eos_token_id = [first]
    assert continuation(model, tokenizer, PROMPT).text == ""


def test_more_candidates_than_tokens_are_all_tokens() -> None:
    model = tiny("llama2")
    found = continuation(model, tiny_tokenizer(), PROMPT, top=1000, max_tokens=0)
    assert len(found.candidates) == model.config.vocab_size
    assert sum(candidate.probability for candidate in found.candidates) == pytest.approx(
        1, abs=1e-4
    )
    assert found.text == ""


def test_no_gradient_is_kept() -> None:
    model = tiny("llama2").requires_grad_(True)
    assert continuation(model, tiny_tokenizer(), PROMPT).prompt == PROMPT
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
