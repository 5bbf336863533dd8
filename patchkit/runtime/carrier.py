"""One linear module that adds a low-rank change to its output.

The module's own `forward` is replaced on the instance, and U and V become buffers of the module
that no state dict holds. Of the ways to do this, it is the one that torch.compile takes whole:

- A forward hook is not guarded: a model that was compiled before keeps its old code, and the patch
  is silently ignored.
- A wrapping module changes the names of parameters, and what finds modules by name or by class
  (save_pretrained, quantisers, this library) no longer finds them.
- An instance's `forward` is guarded, inlined without a graph break, and goes around whatever was
  there before, such as the hooks with which accelerate moves weights between devices.

U and V are inputs of the compiled graph, so that overwriting them in place recompiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchkit.errors import InvariantError
from patchkit.factors.kinds import Factor
from patchkit.factors.lowrank import Change, LowRank, Seen, look
from patchkit.tensors.layout import Site, has_plain_weight

DOWN, UP, INNER = "patchkit_down", "patchkit_up", "patchkit_inner"
_BLOCK = 2 << 20  # numbers that are brought to fp64 at a time


def forward(self: Any, x: Tensor) -> Tensor:
    """Return what the module computes without a patch, plus U (V x), in any leading shape."""
    inside = F.linear(x.to(self.patchkit_down), self.patchkit_down)  # (..., k)
    y: Tensor = self.patchkit_inner(x)
    return y + F.linear(inside, self.patchkit_up)


class Carrier:
    """A module, what can be known of its weight without writing to it, and the buffers on it."""

    def __init__(self, module: nn.Module, site: Site, dtype: torch.dtype) -> None:
        """Take a module that carries nothing yet; `dtype` is that of the model's activations."""
        if DOWN in module._buffers:
            raise InvariantError(
                f"{site.module} carries a patch already",
                hint="detach that one first, or attach both together: attach(model, [a, b])",
                details={"module": site.module},
            )
        self.module = module
        self.site = site
        self.rank = 0  # inner size of the buffers, which stays while they are on the module
        weight: Any = module.weight
        # What a linear module takes: packed weights are of an integer type and say nothing of it.
        self._dtype = weight.dtype if weight.is_floating_point() else dtype
        self._device = torch.device("cpu") if weight.is_meta else weight.device

    @property
    def weight(self) -> Tensor | None:
        """The weight as stored, None where it is quantised or not in memory."""
        weight = cast(Tensor, self.module.weight)
        return weight.detach() if has_plain_weight(self.module) and not weight.is_meta else None

    @property
    def stands(self) -> bool:
        """Whether the module still runs what was put there."""
        now = self.module.__dict__.get("forward")
        return DOWN in self.module._buffers and getattr(now, "__func__", None) is forward

    def change(self, factors: Sequence[Factor]) -> tuple[Change, Seen]:
        """Return the change that factors make to this module's weight, and what it needs of it."""
        size = (self.site.d_out, self.site.d_in)
        change = Change(factors, size, device=self._device)
        weight = self.weight
        if weight is None:
            return change, _pushed(self._apply, change)
        return change, look(change, _rows(weight), self.site.layout)

    def install(self, low: LowRank) -> None:
        """Put U and V on the module, and the forward that uses them."""
        place = self._run(torch.zeros(1, self.site.d_in))
        self.rank = low.rank
        for name, values in ((DOWN, low.down), (UP, low.up)):
            self.module.register_buffer(name, values.to(place).contiguous(), persistent=False)
        object.__setattr__(self.module, INNER, self.module.forward)
        object.__setattr__(self.module, "forward", MethodType(forward, self.module))

    def load(self, low: LowRank) -> None:
        """Overwrite U and V in place."""
        buffers: Any = self.module._buffers
        buffers[DOWN].copy_(low.down)
        buffers[UP].copy_(low.up)

    def remove(self) -> None:
        """Leave the module as it was before `install`."""
        inner = self.module.__dict__.pop(INNER)
        del self.module.__dict__["forward"]
        # Something like accelerate may have put a forward there before; a class's own is not kept.
        if getattr(inner, "__func__", None) is not type(self.module).forward:
            object.__setattr__(self.module, "forward", inner)
        del self.module._buffers[DOWN], self.module._buffers[UP]
        self.module._non_persistent_buffers_set -= {DOWN, UP}

    def _run(self, x: Tensor) -> Tensor:
        """Return what the module itself computes, without a patch."""
        inner: Callable[[Tensor], Tensor] = self.module.__dict__.get(INNER) or self.module.forward
        return inner(x.to(self._device, self._dtype))

    def _apply(self, columns: Tensor) -> Tensor:
        """Return W C (d_out, m) in fp64 for columns C (d_in, m), to the precision of the module."""
        bias = self._run(torch.zeros(1, self.site.d_in))
        return (self._run(columns.T) - bias).T.to(self._device, torch.float64)


def _rows(weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _BLOCK // weight.shape[1])
    for start in range(0, len(weight), step):
        yield start, weight[start : start + step]


def _pushed(times: Callable[[Tensor], Tensor], change: Change) -> Seen:
    """Return W Bᵣ and Bₗᵀ W of a weight that can only be multiplied by.

    The second needs every column of W, and gets them by pushing the identity through in blocks.
    """
    right, left = change.right, change.left
    reach = times(right) if right.shape[1] else right.new_zeros(len(left), 0)
    lift = left.new_zeros(left.shape[1], len(right))
    step = max(1, _BLOCK // len(right))
    for start in range(0, len(right) if len(lift) else 0, step):
        columns = right.new_zeros(len(right), min(step, len(right) - start))
        columns[start : start + step].fill_diagonal_(1.0)
        lift[:, start : start + step] = left.T @ times(columns)
    return Seen(reach, lift)
