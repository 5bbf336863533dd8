"""How a model goes on after a prompt: its likeliest next tokens, and a short greedy text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.facts.position import encode_probe
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
    ids = list(encode_probe(tokenizer, prompt).ids)
    start, ends = len(ids), _ends(model, tokenizer)
    logits = _next(model, ids)
    probabilities, tokens = logits.softmax(-1).topk(min(top, len(logits)))
    candidates = tuple(
        Candidate(token, str(tokenizer.decode([token])), probability)
        for token, probability in zip(tokens.tolist(), probabilities.tolist(), strict=True)
    )
    while len(ids) - start < max_tokens:
        best = int(logits.argmax())
        if best in ends:
            break
        ids.append(best)
        logits = _next(model, ids)
    return Continuation(prompt, candidates, _text(tokenizer, ids, start))


@torch.no_grad()
def _next(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Logits (vocabulary,) of the token after `ids`."""
    row = torch.tensor([ids], device=model.device)
    hidden = trunk(model)(input_ids=row, use_cache=False).last_hidden_state
    return readout(model, hidden[0, -1]).float()


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens after which nothing follows, as the tokenizer and the model's settings name them."""
    settings = getattr(model.generation_config, "eos_token_id", None)
    named = settings if isinstance(settings, list) else [settings]
    return {token for token in (*named, tokenizer.eos_token_id) if token is not None}


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int) -> str:
    """The text of the tokens from `start` on; some decoders drop a space at the very beginning."""
    before = str(tokenizer.decode(ids[:start], skip_special_tokens=True))
    whole = str(tokenizer.decode(ids, skip_special_tokens=True))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))
