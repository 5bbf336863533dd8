"""The variable of an edit: a rotation of one matrix's input, confined to a small subspace.

`R = exp(A)` with `A = X Pᵀ − P Xᵀ`: the columns of `P` are *reading* directions (where the edited
keys stand out from preserved knowledge), those of `X` are *landing* directions (what the matrix
turns into the wanted change). With `A = E Fᵀ`, `E = [X −P]` and `F = [P X]`,

    exp(A) = I + E φ(FᵀE) Fᵀ,   φ(M) = (exp(M) − I) / M,

so the exponential costs as much as 2r × 2r matrices, whatever the basis. The rotation acts on
activations while it is being optimised; the weight is never touched, no d × d matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One value of the rotation, W(R − I) = write · readᵀ in basis coordinates.

    `write` (d_out, 2r) is what the matrix emits, `read` (m, 2r) what it is emitted for.
    """

    write: Tensor
    read: Tensor


class Rotor:
    """An input-side rotation of `weight` inside span(basis), with optimisable landing columns."""

    def __init__(self, weight: Tensor, basis: Tensor, reading: Tensor) -> None:
        """Take `weight` (d_out, d_in), orthonormal `basis` (d_in, m), `reading` (m, r)."""
        self.basis = basis
        self.reading = reading
        self.emitted = weight @ basis  # (d_out, m)
        self.landing = torch.zeros_like(reading, requires_grad=True)  # (m, r)

    def turn(self) -> Turn:
        """Return the rotation that the landing columns stand for now."""
        left = torch.cat([self.landing, -self.reading], dim=1)  # (m, 2r)
        right = torch.cat([self.reading, self.landing], dim=1)  # (m, 2r)
        return Turn(self.emitted @ left @ _phi(right.T @ left), right)

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


def _phi(m: Tensor) -> Tensor:
    """Return (exp(M) − I) / M for any M (k, k), singular or not.

    It is the corner of the exponential of [[M, I], [0, 0]] (Higham, Functions of Matrices, §10.7).
    """
    k = len(m)
    joined = m.new_zeros(2 * k, 2 * k)
    joined[:k, :k] = m
    joined[:k, k:] = torch.eye(k, dtype=m.dtype, device=m.device)
    corner: Tensor = torch.linalg.matrix_exp(joined)[:k, k:]
    return corner
