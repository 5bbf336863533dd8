"""The kinds of factors, and what can be said of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeAlias

from torch import Tensor

from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation

Turn: TypeAlias = Rotation | RotationBlocks
"""A factor that keeps every singular value."""

Factor: TypeAlias = Turn | Additive | AdditiveDense


def tensors_of(factor: Factor) -> dict[str, Tensor]:
    """Return a factor's tensors by their names, in the order of the names."""
    names = (each.name for each in fields(factor) if each.name != "side")
    return {name: getattr(factor, name) for name in sorted(names)}


def mapped(factor: Factor, change: Callable[[Tensor], Tensor]) -> Factor:
    """Return a factor of the same kind and side with each of its tensors changed."""
    changed: dict[str, Any] = {name: change(t) for name, t in tensors_of(factor).items()}
    return replace(factor, **changed)


def sizes(factor: Factor) -> tuple[int | None, int | None]:
    """Return the (d_out, d_in) of weights that a factor fits; None where it fits any."""
    if isinstance(factor, Additive):
        return factor.l.shape[0], factor.f.shape[1]
    if isinstance(factor, AdditiveDense):
        return factor.d.shape[0], factor.d.shape[1]
    return (None, factor.size) if factor.side == "input" else (factor.size, None)
