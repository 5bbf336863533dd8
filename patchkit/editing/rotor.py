"""The variable of an edit: a rotation of one matrix's input, confined to a small subspace.

`R = exp(A)` with `A = X Pᵀ − P Xᵀ`: the columns of `P` are *reading* directions (where the edited
keys stand out from preserved knowledge), those of `X` are *landing* directions (what the matrix
turns into the wanted change), orthogonal to all of `P`. The exponential then has a closed form in
r × r matrices for r reading directions ([angles](angles.py)), whatever the basis. The rotation acts
on activations while it is being optimised; the weight is never touched, no d × d matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchkit.editing.angles import angles


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One value of the rotation, W(R − I) = write · readingᵀ.

    `write` (d_out, 2r) is what the matrix emits, `reading` (d_in, 2r) what it is emitted for, and
    `read` (m, 2r) is the same in basis coordinates.
    """

    write: Tensor
    read: Tensor
    reading: Tensor

    @contextmanager
    def acting(self, module: nn.Module, rows: nn.Module | None = None) -> Iterator[None]:
        """Rotate the inputs of `module` inside the block.

        With `rows`, a module around it that is given whole rows (b, t, d), only the first token of
        each is rotated. Inside it some architectures have one token behind another.
        """
        lengths: list[int] = []

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            lengths[:] = [(args[0] if args else kwargs["hidden_states"]).shape[1]]

        def turn(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            keys = args[0].flatten(0, -2)[:: lengths[0]] if lengths else args[0]
            seen = keys.to(self.write.dtype) @ self.reading  # (…, 2r)
            change: Tensor = (seen @ self.write.T).to(out.dtype)
            if lengths:
                rest = 0, 0, 0, lengths[0] - 1
                change = nn.functional.pad(change[:, None], rest).reshape(out.shape)
            return out + change

        with ExitStack() as hooks:
            if rows is not None:
                hooks.callback(rows.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(turn).remove)
            yield


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
        coordinates = torch.cat([eye, x], dim=1)
        return Turn(write, coordinates, self.basis @ coordinates)

    def generator(self) -> tuple[Tensor, Tensor]:
        """Return X and P (d_in, r) in fp64, as they are now."""
        basis = self.basis.double()
        x = basis[:, self.reading :] @ self.landing.detach().double()
        return x, basis[:, : self.reading]
