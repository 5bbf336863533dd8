"""One tensor of a patch to be: its factors rounded once to the stored type, and described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from patchkit.errors import InvariantError
from patchkit.factors import Layout
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor, mapped
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import TensorMeta
from patchkit.patch.parts import factor_meta, factor_parts

Storage = Literal["float32", "bfloat16"]
"""Type in which the numbers of factors are stored."""

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class TensorDraft:
    """How the base stores a tensor, and what shall be done to it.

    `shape` and `dtype` (a safetensors name) are the stored ones; `base_sha256` is the digest of
    the tensor's bytes in the base's file.
    """

    shape: tuple[int, int]
    dtype: str
    layout: Layout
    base_sha256: str
    factors: Sequence[Factor]

    def stored(self, storage: Storage) -> TensorDraft:
        """Return the draft with rounded factors, without those of rank 0.

        InvariantError for a factor that is not finite there, or a rotation beyond its limit.
        """
        kept = [_rounded(factor, _TYPES[storage]) for factor in self.factors if factor.rank]
        return replace(self, factors=kept)

    def describe(self) -> TensorMeta:
        """Return the metadata; InvariantError if a factor does not fit the tensor's shape."""
        meta = TensorMeta(
            shape=self.shape,
            dtype=self.dtype,
            layout=self.layout,
            base_sha256=self.base_sha256,
            factors=tuple(factor_meta(factor) for factor in self.factors),
        )
        for factor, described in zip(self.factors, meta.factors, strict=True):
            wanted = described.parts(meta.d_out, meta.d_in)
            found = {part: tuple(t.shape) for part, t in factor_parts(factor).items()}
            if found != wanted:
                raise InvariantError(
                    f"a factor of shapes {found} does not fit a tensor that needs {wanted}"
                )
        return meta


def _rounded(factor: Factor, dtype: torch.dtype) -> Factor:
    rounded = mapped(factor, lambda t: t.detach().to("cpu", dtype).contiguous())
    if isinstance(rounded, RotationBlocks | Rotation):
        rounded.check()
    elif not all(bool(torch.isfinite(part).all()) for part in factor_parts(rounded).values()):
        raise InvariantError(f"an additive factor holds values that are not finite in {dtype}")
    return rounded
