"""Run the last blocks of a model many times from inputs that were captured once.

An edit at block `first` never changes what enters that block, so value optimisation needs the
blocks before it a single time, and the vocabulary head only where a label is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.editing.capture import Stop
from patchkit.tensors.layout import blocks, final_norm, readout


@dataclass(frozen=True, slots=True)
class Replay:
    """One batch of token rows, stopped in front of block `first`, or behind the last block."""

    model: PreTrainedModel
    tail: tuple[nn.Module, ...]
    calls: tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...]
    hidden: Tensor  # (b, t, d) input of the first replayed block

    def logits(self, rows: Tensor, positions: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Run the tail and return the logits (p, vocab) at `rows`, `positions`, both (p,)."""
        hidden = self.stream(hidden)
        return readout(self.model, final_norm(self.model)(hidden[rows, positions]))

    def stream(self, hidden: Tensor | None = None) -> Tensor:
        """Run the tail and return the residual stream behind the last block, (b, t, d).

        `hidden` (b, t, d) enters in place of what was captured.
        """
        hidden = self.hidden if hidden is None else hidden
        for block, (args, kwargs) in zip(self.tail, self.calls, strict=True):
            out = block(hidden, *args, **kwargs)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden


@torch.no_grad()
def capture_replay(model: PreTrainedModel, ids: Tensor, mask: Tensor, first: int) -> Replay:
    """Run the model once on `ids` and `mask`, both (b, t), and keep what enters block `first`.

    Every later block keeps its own keyword arguments: models with alternating attention give
    each block another mask and another rotary table. `first` may be the number of blocks.
    """
    every = blocks(model)
    tail = tuple(every[first:])
    entered: list[Tensor] = []
    calls: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        hidden = kwargs.pop("hidden_states") if "hidden_states" in kwargs else args[0]
        if not entered:
            entered.append(hidden.detach())
        calls.append((args[1:] if args else (), kwargs))
        if len(calls) == len(tail):
            raise Stop

    def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        entered.append((out[0] if isinstance(out, tuple) else out).detach())
        raise Stop

    hooks = [block.register_forward_pre_hook(record, with_kwargs=True) for block in tail]
    if not tail:
        hooks.append(every[-1].register_forward_hook(leave))
    try:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    except Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return Replay(model, tail, tuple(calls), entered[0])
