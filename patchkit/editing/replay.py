"""Run the last blocks of a model many times from inputs that were captured once.

An edit at block `first` never changes what enters that block, so value optimisation needs the
blocks before it a single time, and the vocabulary head only where a label is. Nor does an edit at
the subject's last token change what stands before it, of which the attention of later tokens needs
the keys and values only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.editing.beginning import Beginning, run_beginning
from patchkit.editing.capture import Stop
from patchkit.editing.rows import Rows
from patchkit.tensors.layout import blocks, final_norm, last_mlp, readout


@dataclass(frozen=True, slots=True)
class Replay:
    """One batch of token rows, stopped in front of block `first`, or behind the last block.

    Row i is here from its token `start[i]` on, `start` (b,).
    """

    model: PreTrainedModel
    tail: tuple[nn.Module, ...]
    calls: tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...]
    hidden: Tensor  # (b, t, d) input of the first replayed block
    start: Tensor
    beginning: Beginning | None = None

    def at(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index into `hidden` of the tokens at `positions` (p,) of `rows` (p,)."""
        return rows, positions - self.start[rows]

    def logits(
        self,
        rows: Tensor,
        positions: Tensor,
        hidden: Tensor | None = None,
        *,
        narrow: bool = False,
    ) -> Tensor:
        """Run the tail and return the logits (p, vocab) at `rows`, `positions`, both (p,).

        If `narrow` the last MLP sees only these tokens, which no hook in it may mind.
        """
        places = self.at(rows, positions)
        mlp = last_mlp(self.model) if self.tail and narrow else None
        with only_at(mlp, places):
            hidden = self.stream(hidden)
        return readout(self.model, final_norm(self.model)(hidden[places]))

    def stream(self, hidden: Tensor | None = None) -> Tensor:
        """Run the tail and return the residual stream behind the last block, (b, t, d).

        `hidden` (b, t, d) enters in place of what was captured.
        """
        hidden = self.hidden if hidden is None else hidden
        for block, (args, kwargs) in zip(self.tail, self.calls, strict=True):
            out = block(hidden, *args, **kwargs)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden


@contextmanager
def only_at(mlp: nn.Module | None, places: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Run `mlp`, the last one, at `places` only; behind it nothing reads the other positions.

    What it gives elsewhere is zero. Without an `mlp` nothing is saved.
    """
    sizes: list[torch.Size] = []

    def gather(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        sizes.append(args[0].shape)
        return (args[0][places], *args[1:])

    def scatter(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out.new_zeros(sizes.pop()).index_put(places, out)

    if mlp is None:
        yield
        return
    hooks = mlp.register_forward_pre_hook(gather), mlp.register_forward_hook(scatter)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def capture_replay(model: PreTrainedModel, ids: Tensor, mask: Tensor, first: int) -> Replay:
    """Run the model once on `ids` and `mask`, both (b, t), and keep what enters block `first`.

    Every later block keeps its own keyword arguments: models with alternating attention give
    each block another mask and another rotary table. `first` may be the number of blocks.
    """
    plain = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    return _captured(model, plain, first, ids.new_zeros(len(ids)))


def replay_subjects(
    model: PreTrainedModel, rows: Rows, first: int, beginning: Beginning | None = None
) -> Replay:
    """Keep what enters block `first` from each subject's last token to the last one asked for.

    What stands before is run once for its attention keys and values, with the weights of now, or
    is given as the `beginning` of these rows.
    """
    start, length = rows.last, int(rows.behind.max())
    if not bool(start.any()):
        return capture_replay(model, rows.ids[:, :length], rows.mask[:, :length], first)
    beginning = beginning or run_beginning(model, rows.ids, start)
    replay = _captured(model, _call(rows, beginning, length), first, start)
    return replace(replay, beginning=beginning)


def _call(rows: Rows, beginning: Beginning, length: int) -> dict[str, Any]:
    """Return the arguments for running `length` tokens of each row from its subject's last on."""
    offsets = torch.arange(length, device=rows.ids.device)
    positions = rows.last[:, None] + offsets  # (n, length)
    inside = positions.clamp_max(rows.ids.shape[1] - 1)
    mask = rows.mask.gather(1, inside) * (positions == inside)
    return {
        "input_ids": rows.ids.gather(1, inside),
        "attention_mask": torch.cat([beginning.mask, mask], dim=1),
        "position_ids": positions,
        "past_key_values": beginning.cache,
        "use_cache": True,
    }


@torch.no_grad()
def _captured(
    model: PreTrainedModel, arguments: Mapping[str, Any], first: int, start: Tensor
) -> Replay:
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
        model(**arguments)
    except Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return Replay(model, tail, tuple(calls), entered[0], start)
