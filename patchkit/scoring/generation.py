"""Free text after many prompts: greedy, or drawn from the likeliest tokens.

Prompts of equal length run together and nothing is padded, so neither positions nor attention can
go wrong at a prompt's edge. Keys and values of what was read are kept. A drawn text depends on the
seed and on its place in the list, not on the batches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress, phase
from patchkit.facts.position import encode_all, probe_passage
from patchkit.scoring.answers import BATCH_TOKENS
from patchkit.tensors.layout import readout, trunk


@dataclass(frozen=True, slots=True)
class Sampling:
    """Draw each token from the `top_k` likeliest, in proportion to their probabilities."""

    top_k: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    """One prompt: its place in the list, its tokens, how many more it gets, and its draws."""

    place: int
    ids: tuple[int, ...]
    budget: int
    draws: Tensor | None  # (budget,) uniform in [0, 1)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    budgets: Sequence[int],
    *,
    sampling: Sampling | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
    name: str = "texts",
) -> tuple[str, ...]:
    """Continue each prompt by at most its budget of tokens, or to an end-of-text token.

    A text ends where the model has no more positions.

    Gives the continuations without their prompts, in order; greedy without `sampling`.
    """
    if not prompts:
        return ()
    texts = [""] * len(prompts)
    ends = end_tokens(model, tokenizer)
    with phase(progress, name, len(prompts), "texts") as advance:
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        rows = _rows(tokenizer, prompts, budgets, sampling, positions or sys.maxsize)
        for batch in _batches(rows, batch_tokens):
            for row, tokens in zip(batch, _continue(model, batch, ends, sampling), strict=True):
                texts[row.place] = text_after(tokenizer, row.ids, tokens)
            advance(len(batch))
    return tuple(texts)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens after which nothing follows, as the tokenizer and the model's settings name them."""
    settings = getattr(model.generation_config, "eos_token_id", None)
    named = settings if isinstance(settings, list) else [settings]
    return frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)


def text_after(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> str:
    """The text of `tokens` after `prompt`; some decoders drop a space at the very beginning."""
    before = str(tokenizer.decode(list(prompt), skip_special_tokens=True))
    whole = str(tokenizer.decode([*prompt, *tokens], skip_special_tokens=True))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _rows(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    budgets: Sequence[int],
    sampling: Sampling | None,
    positions: int,
) -> list[_Row]:
    encoded = encode_all(tokenizer, [probe_passage(prompt) for prompt in prompts])
    draws: Sequence[Tensor | None] = [None] * len(prompts)
    if sampling is not None:
        random = torch.Generator().manual_seed(sampling.seed)
        draws = [torch.rand(budget, generator=random, dtype=torch.float64) for budget in budgets]
    return [
        _Row(place, item.ids, max(0, min(budget, positions - len(item.ids))), draw)
        for place, (item, budget, draw) in enumerate(zip(encoded, budgets, draws, strict=True))
    ]


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows of one length, those with like budgets together."""
    lengths: dict[int, list[_Row]] = {}
    for row in rows:
        lengths.setdefault(len(row.ids), []).append(row)
    for length in sorted(lengths, reverse=True):
        ordered = sorted(lengths[length], key=lambda row: -row.budget)
        start = 0
        while start < len(ordered):
            size = max(1, batch_tokens // max(1, length + ordered[start].budget))
            yield ordered[start : start + size]
            start += size


@torch.no_grad()
def _continue(
    model: PreTrainedModel, batch: list[_Row], ends: frozenset[int], sampling: Sampling | None
) -> list[list[int]]:
    """The tokens after each row of a batch."""
    written: list[list[int]] = [[] for _ in batch]
    alive = [at for at, row in enumerate(batch) if row.budget > 0]
    ids = torch.tensor([batch[at].ids for at in alive], device=model.device)  # (b, t)
    cache = None
    step = 0
    while alive:
        out = trunk(model)(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits = readout(model, out.last_hidden_state[:, -1]).float()  # (b, vocabulary)
        chosen = _chosen(logits, [batch[at] for at in alive], step, sampling)
        kept = []
        for place, (at, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
            if token not in ends:
                written[at].append(token)
                if len(written[at]) < batch[at].budget:
                    kept.append(place)
        if 0 < len(kept) < len(alive):
            cache.batch_select_indices(torch.tensor(kept, device=model.device))
        alive = [alive[place] for place in kept]
        ids = chosen[kept][:, None]
        step += 1
    return written


def _chosen(logits: Tensor, batch: list[_Row], step: int, sampling: Sampling | None) -> Tensor:
    """The next token of each row (b,)."""
    if sampling is None:
        return logits.argmax(-1)
    values, tokens = logits.topk(min(sampling.top_k, logits.shape[-1]))  # (b, k)
    bounds = values.double().softmax(-1).cumsum(-1)
    draws = [row.draws[step] for row in batch if row.draws is not None]
    drawn = torch.stack(draws).to(logits.device)[:, None]  # (b, 1)
    places = (bounds <= drawn).sum(-1).clamp(max=tokens.shape[-1] - 1)
    return tokens.gather(-1, places[:, None])[:, 0]
