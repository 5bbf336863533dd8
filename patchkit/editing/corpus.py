"""Text that stands for what must be preserved: the base's own, or a file's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.errors import FactsError
from patchkit.events import SILENT, Progress, phase

_ROWS_AT_ONCE = 256


def self_corpus(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    rows: int,
    length: int,
    seed: int,
    progress: Progress = SILENT,
) -> Tensor:
    """Sample `rows` texts of `length` tokens from the model itself, (rows, length).

    A language model's own samples follow the distribution of what it knows, so they show which
    keys matter without any data set. The global random state is left as it was.
    """
    device = model.device
    start = _start_token(model, tokenizer)
    parts: list[Tensor] = []
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        phase(progress, "sampling preserved text", rows, "texts") as advance,
    ):
        torch.manual_seed(seed)
        for first in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - first)
            parts.append(_sample(model, torch.full((count, 1), start, device=device), length))
            advance(count)
    return torch.cat(parts)


@torch.no_grad()
def _sample(model: PreTrainedModel, ids: Tensor, length: int) -> Tensor:
    """Continue `ids` (b, 1) to `length` tokens by plain sampling at temperature 1, (b, length)."""
    cache = None
    token = ids
    for _ in range(length - 1):
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        chances = torch.softmax(out.logits[:, -1].float(), dim=-1)
        token = torch.multinomial(chances, 1)
        ids = torch.cat([ids, token], dim=1)
    return ids


def _start_token(model: PreTrainedModel, tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, model.config.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def file_corpus(path: Path, tokenizer: Any, *, rows: int, length: int) -> Tensor:
    """Cut the text of `path` into at most `rows` windows of `length` tokens, (rows, length).

    Blank lines part documents, which are read as the tokenizer opens a text. With enough of them a
    window begins where a document does, for an edit has to keep what stands first in a text, too;
    else windows are spread evenly. Raises FactsError when the file is not UTF-8, or holds less than
    one window.
    """
    documents = re.split(r"\s*\n\s*\n\s*", _text_of(path).strip())
    encoded = tokenizer(documents, return_attention_mask=False)["input_ids"]
    ids = list(chain.from_iterable(encoded))
    count = min(rows, len(ids) // length)
    if count == 0:
        raise FactsError(
            f"{path.name} has {len(ids)} tokens, fewer than one window of {length}",
            hint="give a longer text with --corpus, or leave it out to use the base's own text",
        )
    last = len(ids) - length
    places: Sequence[int] = [at for at in accumulate(map(len, encoded), initial=0) if at <= last]
    if len(places) < count:
        places = range(last + 1)
    chosen = [places[index * len(places) // count] for index in range(count)]
    return torch.tensor([ids[at : at + length] for at in chosen])


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FactsError(
            f"{path.name} is not UTF-8: {error.reason} at byte {error.start + 1}",
            hint=f"iconv -t UTF-8 {path.name} > text.utf8.txt",
        ) from None


def rows_at_once(ids: Tensor, tokens: int) -> int:
    """Return how many rows of `ids` (n, t) have about so many tokens, at least one."""
    return max(1, tokens // ids.shape[1])
