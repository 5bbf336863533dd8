"""Facts as padded token rows on the model's device, with the positions that matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.capture import capture
from patchkit.facts.fact import Fact
from patchkit.facts.position import Passage, encode_all, fact_passage, pad
from patchkit.tensors.layout import Site

_PADDING = 1.25  # the longest row of a part over its shortest
_WORTHWHILE = 16  # rows


@dataclass(frozen=True, slots=True)
class Rows:
    """One row for each fact in one context; `ids`, `mask` (n, t), `last` (n,).

    The labels of all rows stand one behind another: `label_row`, `label_position`, `label_id`
    are (p,), and the logits at (row, position) should predict the id.
    """

    ids: Tensor
    mask: Tensor
    last: Tensor
    label_row: Tensor
    label_position: Tensor
    label_id: Tensor

    @property
    def count(self) -> int:
        """Number of facts n."""
        return len(self.ids)

    @property
    def behind(self) -> Tensor:
        """Tokens (n,) of each row that an edit of its subject needs, the subject's last one first.

        What a label stands behind is not asked for anything, nor what follows a subject alone.
        """
        distance = self.label_position - self.last[self.label_row]
        return 1 + torch.zeros_like(self.last).scatter_reduce(0, self.label_row, distance, "amax")

    def only(self, index: Sequence[int]) -> Rows:
        """Return the rows at `index`, in that order, as long as the longest, with their labels."""
        chosen = torch.tensor(list(index), dtype=torch.long, device=self.ids.device)
        length = int(self.mask[chosen].sum(1).max()) if len(chosen) else 0
        new, old = torch.nonzero(chosen[:, None] == self.label_row[None, :], as_tuple=True)
        return Rows(
            ids=self.ids[chosen, :length],
            mask=self.mask[chosen, :length],
            last=self.last[chosen],
            label_row=new,
            label_position=self.label_position[old],
            label_id=self.label_id[old],
        )

    def per_fact(self, losses: Tensor) -> Tensor:
        """Average label losses (p,) over the labels of each fact, (n,)."""
        ones = torch.ones_like(losses)
        total = losses.new_zeros(self.count).index_add(0, self.label_row, losses)
        return total / losses.new_zeros(self.count).index_add(0, self.label_row, ones)


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Cut rows of these lengths into parts of at most `most` rows that waste little on padding.

    Every index is in one part, shortest rows first. Parts are not cut smaller than is worth while,
    because each costs something however short its rows are.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    parts: list[list[int]] = []
    for place, index in enumerate(order):
        last = parts[-1] if parts else []
        enough = min(len(last), len(order) - place) >= _WORTHWHILE
        longer = enough and lengths[index] > _PADDING * lengths[last[0]]
        if not last or len(last) >= most or longer:
            parts.append([])
        parts[-1].append(index)
    return parts


def build_rows(tokenizer: Any, facts: Sequence[Fact], context: str, device: torch.device) -> Rows:
    """Tokenise every fact's prompt and target behind `context`, padded on the right.

    Padding stands behind because no position then sees it, whatever the tokenizer's own side.
    """
    passages = [fact_passage(fact, context=context, target=fact.target) for fact in facts]
    return _rows(tokenizer, passages, device)


def plain_rows(tokenizer: Any, facts: Sequence[Fact], prompt: str, device: torch.device) -> Rows:
    """Tokenise `prompt`, which has one `{}`, for every fact's subject; there are no labels."""
    passages = [fact_passage(fact, prompt=prompt) for fact in facts]
    return _rows(tokenizer, passages, device)


def _rows(tokenizer: Any, passages: Sequence[Passage], device: torch.device) -> Rows:
    encoded = encode_all(tokenizer, passages)
    batch = pad(encoded, tokenizer.pad_token_id or 0, "right")
    labels = [
        (row, position, token)
        for row, pairs in enumerate(batch.labels)
        for position, token in pairs
    ]
    table = torch.tensor(labels, dtype=torch.long, device=device).reshape(-1, 3)
    row, position, token = table.unbind(1)
    return Rows(
        ids=torch.tensor(batch.ids, device=device),
        mask=torch.tensor(batch.mask, device=device),
        last=torch.tensor(batch.subject_last, device=device),
        label_row=row,
        label_position=position,
        label_id=token,
    )


def keys_in_contexts(
    model: PreTrainedModel, sites: Sequence[Site], contexts: Sequence[Rows]
) -> dict[int, Tensor]:
    """Return every fact's key at the subject's last token by layer, (n, c, d_in) in fp32."""
    flows = [capture(model, rows.ids, rows.mask, sites) for rows in contexts]
    return {
        site.layer: torch.stack(
            [
                flow[site.layer].at(rows.last).keys.float()
                for flow, rows in zip(flows, contexts, strict=True)
            ],
            dim=1,
        )
        for site in sites
    }


def mean_key(keys: Tensor) -> Tensor:
    """Return one key (n, d_in) for each fact: half the bare prompt, half the other contexts."""
    bare = keys[:, 0]
    return bare if keys.shape[1] == 1 else (bare + keys[:, 1:].mean(1)) / 2
