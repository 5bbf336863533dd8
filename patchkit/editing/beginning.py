"""What stands before the edited tokens, as the attention keys and values that later tokens see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from patchkit.tensors.layout import trunk


class Reading(DynamicCache):
    """A cache that gives later tokens what it has seen, and keeps nothing of them once sealed.

    So one that was filled once serves any number of passes, and none of them is in its graph.
    """

    sealed = False

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values (b, heads, t, head_dim) of layer `layer_idx`, old and new."""
        if not self.sealed:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        seen: Any = self.layers[layer_idx]
        return (
            torch.cat([seen.keys, key_states], dim=-2),
            torch.cat([seen.values, value_states], dim=-2),
        )


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first tokens of each row in `cache`, padded on the left to one length; `mask` (n, t)."""

    cache: Reading
    mask: Tensor

    def only(self, rows: Tensor) -> Beginning:
        """Return the beginnings of `rows` (m,), in that order."""
        cache = Reading()
        for index, layer in enumerate(self.cache.layers):
            seen: Any = layer
            cache.update(seen.keys[rows], seen.values[rows], index)
        cache.sealed = True
        return Beginning(cache, self.mask[rows])


@torch.no_grad()
def run_beginning(model: PreTrainedModel, ids: Tensor, lengths: Tensor) -> Beginning:
    """Run the first `lengths` (n,) tokens of each row of `ids` (n, t), at least one of them some.

    Rows end together, so that what follows stands behind each without a gap. A row may be empty.
    """
    longest = int(lengths.max())
    positions = torch.arange(longest, device=ids.device) - (longest - lengths[:, None])
    mask = (positions >= 0).to(ids.dtype)  # (n, longest)
    places = positions.clamp_min(0)
    cache = Reading()
    trunk(model)(
        input_ids=ids.gather(1, places),
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
    )
    cache.sealed = True
    return Beginning(cache, mask)
