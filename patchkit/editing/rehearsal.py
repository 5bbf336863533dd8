"""Preserved text as the base reads it, to be read the same way while an edit is made.

Second moments say how far a matrix's outputs move, not which movements change a prediction. Here
the predictions themselves are kept: of the tokens behind which the base is surest of what follows
those that it finds likeliest, and the divergence of the edited model's from them is a price of the
edit (rehearsal, as continual learning calls it; Robins 1995,
https://doi.org/10.1080/09540099550039318). A token counts for as much as the base is sure:
knowledge is where it is, and elsewhere, as in the middle of a name, a sample of tokens says little
but noise. Most tokens are elsewhere, and need no vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.corpus import rows_at_once
from patchkit.editing.replay import only_at
from patchkit.events import SILENT, Progress, phase
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.layout import last_mlp, readout, trunk

_LIKELIEST = 32
_SUREST = 0.9  # share of all sureness that the tokens which are kept hold
_TOKENS_AT_ONCE = 2048
_LEAST = 1e-6  # of probability, what rounding can make of the unlikely tokens' share


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsal:
    """Token rows `ids` (n, t) and what the base says next behind the tokens it is surest at.

    Those are at `row`, `position`, both (m,), row by row; `likeliest` (m, k) are token ids and
    `logprobs` (m, k), in fp32, theirs.
    """

    ids: Tensor
    row: Tensor
    position: Tensor
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
        mine, device = workers.share(turn), model.device
        kept, row = self._inside(mine)
        if not len(kept):
            return torch.zeros((), device=device)
        old, tokens = self.logprobs[kept].to(device), self.likeliest[kept].to(device)
        new = _logprobs(model, self.ids[mine], row, self.position[kept]).gather(-1, tokens.long())
        gap = (old.exp() * (old - new)).sum(-1)  # (m′,)
        rest, now = _remaining(old), _remaining(new)
        gap = gap + rest * (rest / now).log()
        every = _sureness(self.logprobs[self._inside(turn)[0]]).sum().to(device)
        return (_sureness(old) * gap).sum() / every

    def _inside(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the indices (m′,) of what is kept in `rows`, and its row's place among them."""
        place = self.row.new_full((len(self.ids),), -1)
        place[list(rows)] = torch.arange(len(rows))
        kept = torch.nonzero(place[self.row] >= 0).squeeze(1)
        return kept, place[self.row[kept]]


@torch.no_grad()
def rehearse(model: PreTrainedModel, ids: Tensor, progress: Progress = SILENT) -> Rehearsal:
    """Read the rows `ids` (n, t) once and keep what `model` predicts where it is surest."""
    length = ids.shape[1] - 1
    found: list[tuple[Tensor, Tensor]] = []
    with phase(progress, "reading preserved text", len(ids), "texts") as advance:
        for rows in torch.split(ids, rows_at_once(ids, _TOKENS_AT_ONCE)):
            row, position = _grid(len(rows), length)
            logprobs = _logprobs(model, rows, row, position)
            values, tokens = logprobs.topk(min(_LIKELIEST, logprobs.shape[-1]), dim=-1)
            found.append((tokens.int().cpu(), values.cpu()))
            advance(len(rows))
    likeliest, logprobs = (torch.cat(parts) for parts in zip(*found, strict=True))
    row, position = _grid(len(ids), length)
    kept = _surest(_sureness(logprobs))
    return Rehearsal(ids.cpu(), row[kept], position[kept], likeliest[kept], logprobs[kept])


def _grid(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Return row and position (rows · length,) of the first `length` tokens of every row."""
    row, position = torch.meshgrid(torch.arange(rows), torch.arange(length), indexing="ij")
    return row.flatten(), position.flatten()


def _surest(sureness: Tensor) -> Tensor:
    """Return the indices, in order, of the fewest that hold their share of `sureness` (m,)."""
    order = sureness.argsort(descending=True, stable=True)
    held = sureness[order].double().cumsum(0)
    count = int((held < _SUREST * held[-1]).sum()) + 1
    return order[:count].sort().values


def _logprobs(model: PreTrainedModel, ids: Tensor, row: Tensor, position: Tensor) -> Tensor:
    """Return log-probabilities (m, vocab), in fp32, of the tokens behind (row, position), (m,).

    The last MLP and the head see only these tokens.
    """
    places = row.to(model.device), position.to(model.device)
    with only_at(last_mlp(model), places):
        hidden = trunk(model)(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    return torch.log_softmax(readout(model, hidden[places]).float(), dim=-1)


def _remaining(logprobs: Tensor) -> Tensor:
    """Return the probability (m,) of all tokens that are not among these (m, k)."""
    return (1 - logprobs.exp().sum(-1)).clamp_min(_LEAST)


def _sureness(logprobs: Tensor) -> Tensor:
    """Return Σ p² (m,) over the likeliest tokens (m, k)."""
    return (2 * logprobs).exp().sum(-1)
