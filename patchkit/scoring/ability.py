"""What a model can do apart from the facts: how well it predicts ordinary text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.errors import FactsError
from patchkit.events import SILENT, Progress
from patchkit.facts.position import Encoded
from patchkit.scoring.answers import BATCH_TOKENS, answers

WINDOW = 512
"""Tokens of one window of text, what the tokenizer puts in front included."""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood per predicted token, over `tokens` tokens."""

    value: float
    tokens: int
    window: int


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    window: int = WINDOW,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
    name: str = "perplexity",
) -> Perplexity:
    """Measure the perplexity of `text`, cut into windows that follow each other without overlap.

    Each window starts with the tokenizer's own first token, where it has one, and is predicted
    from itself alone; windows are shortened to the positions that the model has. Raises
    FactsError for a text with nothing to predict.
    """
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    size = min(window, longest or window)
    encodings = list(windows(tokenizer, text, size))
    if not encodings:
        raise FactsError("the text is too short: perplexity needs a token that follows another")
    found = answers(model, encodings, batch_tokens=batch_tokens, progress=progress, name=name)
    tokens = sum(len(answer.tokens) for answer in found)
    loss = -math.fsum(answer.logprob for answer in found) / tokens
    return Perplexity(math.exp(min(loss, 700.0)), tokens, size)


def windows(tokenizer: PreTrainedTokenizerBase, text: str, size: int) -> Iterator[Encoded]:
    """Cut a text into encodings of at most `size` tokens whose every token is wanted."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    front = _front(tokenizer)
    step = max(1, size - len(front))
    for start in range(0, len(ids), step):
        window = (*front, *ids[start : start + step])
        if len(window) > 1:
            labels = tuple((place, token) for place, token in enumerate(window[1:]))
            yield Encoded(window, None, labels)


def _front(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    bos = tokenizer.bos_token_id
    ids = tokenizer("a")["input_ids"]
    return (bos,) if bos is not None and ids[:1] == [bos] else ()
