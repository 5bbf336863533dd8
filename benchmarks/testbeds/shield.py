"""Attention masks that make a name be read at its last token.

Left alone, a small model gathers the tokens of a name at the prompt's end and looks the fact up
there, where the wording is already known. Larger models recall at the subject's last token, and
that is where editors write. So in most rows of training no token outside a name sees it in the
first layer, and in later layers only the name's last token is seen: whatever is to be known about
the subject has to be there by then. In the other rows attention is plain, which is how the model
is used afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

SHIELDED_ROWS: Final = 0.9


def masks(names: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (first layer's mask, later layers' mask), True where attention is allowed.

    `names` says which tokens belong to names; a run of them is one name.
    """
    rows, length = names.shape
    begins = names & ~functional.pad(names[:, :-1], (1, 0))
    last = names & ~functional.pad(names[:, 1:], (0, 1))
    run = begins.cumsum(1) * names
    inside = (run[:, :, None] == run[:, None, :]) & names[:, None, :]
    plain = (torch.rand(rows, generator=generator) >= SHIELDED_ROWS)[:, None, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    first = (~names[:, None, :] | inside | plain) & causal
    later = first | (last[:, None, :] & causal)
    return first[:, None], later[:, None]


@contextmanager
def shielded(
    model: LlamaForCausalLM, names: torch.Tensor, generator: torch.Generator
) -> Iterator[None]:
    """Run the model's layers with these masks for as long as the context lasts."""
    first, later = (mask.to(names.device) for mask in masks(names.cpu(), generator))

    def hook(mask: torch.Tensor) -> Any:
        return lambda module, args, kwargs: (args, {**kwargs, "attention_mask": mask})

    with ExitStack() as stack:
        for i, layer in enumerate(model.model.layers):
            handle = layer.self_attn.register_forward_pre_hook(
                hook(later if i else first), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield
