"""The variable of an edit: a rotation of one matrix's input, confined to a small subspace.

`R = exp(A)` with `A = X Pᵀ − P Xᵀ`: the columns of `P` are *reading* directions (where the edited
keys stand out from preserved knowledge), those of `X` are *landing* directions (what the matrix
turns into the wanted change), orthogonal to all of `P`. The exponential then has a closed form in
r × r matrices for r reading directions ([angles](angles.py)), whatever the basis. The rotation acts
on activations while it is being optimised; the weight is never touched, no d × d matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchkit.editing.angles import angles


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One value of the rotation, W(R − I) = write · readᵀ in basis coordinates.

    `write` (d_out, 2r) is what the matrix emits, `read` (m, 2r) what it is emitted for.
    """

    write: Tensor
    read: Tensor


class Rotor:
    """An input-side rotation of `weight` inside span(basis), with optimisable landing columns."""

    def __init__(self, weight: Tensor, basis: Tensor, reading: int) -> None:
        """Take `weight` (d_out, d_in) and an orthonormal `basis` (d_in, m).

        The first `reading` columns r are P; X is made of the others.
        """
        self.basis = basis
        self.reading = reading
        self.emitted = weight @ basis  # (d_out, m)
        landing = basis.new_zeros(basis.shape[1] - reading, reading)
        self.landing = landing.requires_grad_()  # (m - r, r)

    def turn(self) -> Turn:
        """Return the rotation that the landing columns stand for now."""
        read, land = self.emitted[:, : self.reading], self.emitted[:, self.reading :]
        landed = land @ self.landing  # (d_out, r) W X
        turned, slid, bent = angles(self.landing.T @ self.landing)
        write = torch.cat([read @ turned + landed @ slid, landed @ bent - read @ slid], dim=1)
        eye = torch.eye(len(self.basis.T), self.reading, dtype=read.dtype, device=read.device)
        x = nn.functional.pad(self.landing, (0, 0, self.reading, 0))  # (m, r)
        return Turn(write, torch.cat([eye, x], dim=1))

    def generator(self) -> tuple[Tensor, Tensor]:
        """Return X and P (d_in, r) in fp64, as they are now."""
        basis = self.basis.double()
        x = basis[:, self.reading :] @ self.landing.detach().double()
        return x, basis[:, : self.reading]

    @contextmanager
    def acting(self, module: nn.Module) -> Iterator[Turn]:
        """Rotate the inputs of `module` inside the block and yield `turn()`, computed once."""
        turn = self.turn()

        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            seen = (args[0].to(self.basis.dtype) @ self.basis) @ turn.read
            changed: Tensor = out + (seen @ turn.write.T).to(out.dtype)
            return changed

        handle = module.register_forward_hook(hook)
        try:
            yield turn
        finally:
            handle.remove()
