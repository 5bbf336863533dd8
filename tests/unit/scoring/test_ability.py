"""Perplexity against torch's own loss, windows that lose no token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import FactsError
from patchkit.scoring.ability import perplexity, windows
from tests.unit.models.factory import TEXT, tiny, tiny_tokenizer

PROSE = " ".join(TEXT)


@pytest.mark.parametrize("architecture", ["llama2", "gpt2"])
def test_one_window_is_the_models_own_loss(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    ids = torch.tensor([tokenizer(TEXT[0])["input_ids"]])
    expected = math.exp(float(model(input_ids=ids, labels=ids).loss))
    found = perplexity(model, tokenizer, TEXT[0])
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.tokens == ids.shape[1] - 1


def test_windows_are_predicted_from_themselves_alone() -> None:
    model, tokenizer = tiny("llama2"), tiny_tokenizer()
    losses, count = 0.0, 0
    for window in windows(tokenizer, PROSE, 16):
        ids = torch.tensor([window.ids])
        losses += float(model(input_ids=ids, labels=ids).loss) * (len(window.ids) - 1)
        count += len(window.ids) - 1
    found = perplexity(model, tokenizer, PROSE, window=16)
    assert found.value == pytest.approx(math.exp(losses / count), rel=1e-5)
    assert (found.tokens, found.window) == (count, 16)


@given(st.integers(2, 40))
def test_windows_lose_no_token(size: int) -> None:
    tokenizer = tiny_tokenizer()
    found = list(windows(tokenizer, PROSE, size))
    wanted = [token for window in found for _, token in window.labels]
    assert wanted == tokenizer(PROSE, add_special_tokens=False)["input_ids"]
    assert all(len(window.ids) <= size for window in found)
    assert all(window.ids[0] == tokenizer.bos_token_id for window in found)


def test_a_window_is_no_longer_than_the_model() -> None:
    model = tiny("gpt2")
    found = perplexity(model, tiny_tokenizer(), PROSE * 8)
    assert found.window == model.config.n_positions


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(FactsError, match="too short"):
        perplexity(tiny("llama2"), tiny_tokenizer(), "")
