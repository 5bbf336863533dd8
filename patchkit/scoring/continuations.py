"""How a model goes on after a prompt: its likeliest next tokens, and a short greedy text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.facts.position import encode_probe
from patchkit.scoring.generation import generate
from patchkit.tensors.layout import readout, trunk


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible next token, as text, and its probability."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Continuation:
    """The likeliest next tokens after a prompt, best first, and the greedy text after it."""

    prompt: str
    candidates: tuple[Candidate, ...]
    text: str


def continuation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    top: int = 5,
    max_tokens: int = 12,
) -> Continuation:
    """Continue one prompt greedily for at most `max_tokens` tokens, or to an end-of-text token."""
    logits = _next(model, encode_probe(tokenizer, prompt).ids)
    probabilities, tokens = logits.softmax(-1).topk(min(top, len(logits)))
    candidates = tuple(
        Candidate(token, str(tokenizer.decode([token])), probability)
        for token, probability in zip(tokens.tolist(), probabilities.tolist(), strict=True)
    )
    (text,) = generate(model, tokenizer, [prompt], [max_tokens])
    return Continuation(prompt, candidates, text)


@torch.no_grad()
def _next(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """Logits (vocabulary,) of the token after `ids`."""
    row = torch.tensor([ids], device=model.device)
    hidden = trunk(model)(input_ids=row, use_cache=False).last_hidden_state
    return readout(model, hidden[0, -1]).float()
