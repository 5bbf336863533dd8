"""The variable of an edit: a rotation of one matrix's input, confined to a small subspace.

`R = I + U (exp(S) − I) Uᵀ` with `S = X Pᵀ − P Xᵀ`: the columns of `P` are *reading* directions
(where the edited keys stand out from preserved knowledge), those of `X` are *landing* directions
(what the matrix turns into the wanted change). The rotation acts on activations while it is being
optimised; the weight is never touched and no d × d matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Rotor:
    """An input-side rotation of `weight` inside span(basis), with optimisable landing columns."""

    def __init__(self, weight: Tensor, basis: Tensor, reading: Tensor) -> None:
        """Take `weight` (d_out, d_in), orthonormal `basis` (d_in, m), `reading` (m, r)."""
        self.basis = basis
        self.reading = reading
        self.emitted = weight @ basis  # (d_out, m)
        self.landing = torch.zeros_like(reading, requires_grad=True)  # (m, r)

    def skew(self) -> Tensor:
        """Return the generator in basis coordinates, (m, m)."""
        half: Tensor = self.landing @ self.reading.T
        return half - half.T

    def turn(self) -> Tensor:
        """Return exp(S) − I, (m, m)."""
        skew = self.skew()
        eye = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
        turn: Tensor = torch.linalg.matrix_exp(skew) - eye
        return turn

    @contextmanager
    def acting(self, module: nn.Module) -> Iterator[Tensor]:
        """Rotate the inputs of `module` inside the block and yield `turn()`, computed once."""
        turn = self.turn()
        write = (self.emitted @ turn).T  # (m, d_out)

        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            change = (args[0].to(self.basis.dtype) @ self.basis) @ write
            return out + change.to(out.dtype)

        handle = module.register_forward_hook(hook)
        try:
            yield turn
        finally:
            handle.remove()
