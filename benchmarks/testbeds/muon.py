"""Muon in float32 (Keller Jordan, https://kellerjordan.github.io/posts/muon/).

torch's own iterates in bfloat16, which a processor without such instructions emulates, some thirty
times slower than float32. The polynomials are gathered on the smaller side of the Gram matrix, so a
wide matrix is read twice and not fifteen times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ROUNDS: Final = 5
_TINY: Final = 1e-7


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose steps have their singular values pushed towards one."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; the size of a matrix's update has AdamW's usual root mean square."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                mean = state.setdefault("momentum_buffer", torch.zeros_like(param))
                mean.lerp_(param.grad, 1 - group["momentum"])
                update = whitened(param.grad.lerp(mean, group["momentum"]))
                size = 0.2 * max(param.shape) ** 0.5
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update, alpha=-group["lr"] * size)


def whitened(matrix: torch.Tensor) -> torch.Tensor:
    """Return `matrix` (m, n) with singular values between about 0.7 and 1.2."""
    if matrix.shape[0] > matrix.shape[1]:
        return whitened(matrix.T).T
    a, b, c = _COEFFICIENTS
    wide = matrix / matrix.norm().clamp_min(_TINY)
    gram = wide @ wide.T  # (m, m)
    factor = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(_ROUNDS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        factor = polynomial @ factor
        gram = polynomial @ gram @ polynomial
    return factor @ wide
