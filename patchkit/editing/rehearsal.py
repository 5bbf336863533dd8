"""Preserved text as the base reads it, to be read the same way while an edit is made.

Second moments say how far a matrix's outputs move, not which movements change a prediction. Here
the predictions themselves are kept: for every token of a text those that the base finds likeliest,
and the divergence of the edited model's from them is a price of the edit (rehearsal, as continual
learning calls it; Robins 1995, https://doi.org/10.1080/09540099550039318). A token counts for as
much as the base is sure of what follows: knowledge is where it is, and elsewhere, as in the middle
of a name, a sample of tokens says little but noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.corpus import rows_at_once
from patchkit.events import SILENT, Progress, phase
from patchkit.parallel import ALONE, Workers

_LIKELIEST = 32
_TOKENS_AT_ONCE = 2048
_LEAST = 1e-6  # of probability, what rounding can make of the unlikely tokens' share


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsal:
    """Token rows `ids` (n, t) and what the base says next after each token but the last.

    `likeliest` (n, t − 1, k) are token ids and `logprobs` (n, t − 1, k), in fp32, theirs.
    """

    ids: Tensor
    likeliest: Tensor
    logprobs: Tensor

    def divergence(self, model: PreTrainedModel, step: int, workers: Workers = ALONE) -> Tensor:
        """Return the mean KL(base ‖ model) in nats per token over the rows whose turn it is.

        Tokens are weighed by the chance Σ p² that two draws of the base agree on what follows. All
        but the k likeliest count as one, which can only lower the divergence. With several
        processes, this one's share of it: the sum over all processes is the mean.
        """
        count = min(rows_at_once(self.ids, _TOKENS_AT_ONCE), len(self.ids))
        turn = [(step * count + index) % len(self.ids) for index in range(count)]
        mine = workers.share(turn)
        if not mine:
            return torch.zeros((), device=model.device)
        chosen, device = torch.tensor(mine), model.device
        old, tokens = self.logprobs[chosen].to(device), self.likeliest[chosen].to(device)
        new = _logprobs(model, self.ids[chosen]).gather(-1, tokens.long())
        gap = (old.exp() * (old - new)).sum(-1)  # (b, t − 1)
        rest, now = _remaining(old), _remaining(new)
        gap = gap + rest * (rest / now).log()
        every = _sureness(self.logprobs[torch.tensor(turn)]).sum().to(device)
        return (_sureness(old) * gap).sum() / every


@torch.no_grad()
def rehearse(model: PreTrainedModel, ids: Tensor, progress: Progress = SILENT) -> Rehearsal:
    """Read the rows `ids` (n, t) once and keep what `model` predicts."""
    found: list[tuple[Tensor, Tensor]] = []
    with phase(progress, "reading preserved text", len(ids), "texts") as advance:
        for rows in torch.split(ids, rows_at_once(ids, _TOKENS_AT_ONCE)):
            logprobs = _logprobs(model, rows)
            values, tokens = logprobs.topk(min(_LIKELIEST, logprobs.shape[-1]), dim=-1)
            found.append((tokens.int().cpu(), values.cpu()))
            advance(len(rows))
    tokens, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Rehearsal(ids.cpu(), tokens, values)


def _logprobs(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return log-probabilities (b, t − 1, vocab), in fp32, of the tokens after the first."""
    logits: Tensor = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1]
    return torch.log_softmax(logits.float(), dim=-1)


def _remaining(logprobs: Tensor) -> Tensor:
    """Return the probability (…) of all tokens that are not among these (…, k)."""
    return (1 - logprobs.exp().sum(-1)).clamp_min(_LEAST)


def _sureness(logprobs: Tensor) -> Tensor:
    """Return Σ p² (…) over the likeliest tokens (…, k)."""
    return (2 * logprobs).exp().sum(-1)
