"""Factors as tensors of a file: their names, their bytes, and back."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import torch
from torch import Tensor

from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor, tensors_of
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import FactorMeta, PatchMetadata
from patchkit.patch.packing import part_name
from patchkit.tensors.header import Header, TensorInfo
from patchkit.tensors.source import ByteSource
from patchkit.tensors.torch_dtypes import torch_dtype


def factor_parts(factor: Factor) -> dict[str, Tensor]:
    """Return a factor's tensors by their last name in the file, in the order of the file."""
    return tensors_of(factor)


def factor_meta(factor: Factor) -> FactorMeta:
    """Return what the metadata says about a factor in its stored type."""
    state = sha256()
    for part in factor_parts(factor).values():
        state.update(tensor_bytes(part))
    digest = "sha256:" + state.hexdigest()
    side = None if isinstance(factor, Additive | AdditiveDense) else factor.side
    blocks = factor.blocks if isinstance(factor, RotationBlocks) else None
    return FactorMeta(factor.kind, factor.rank, digest, side, blocks)


def tensor_bytes(t: Tensor) -> bytes:
    """Return a tensor's values in row-major order, little-endian, without leaving its type."""
    flat = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().tobytes()


def values_not_finite(factors: Iterable[Factor]) -> int:
    """Count the values of factors that are infinite or not a number."""
    parts = [part for factor in factors for part in factor_parts(factor).values()]
    return sum(int((~torch.isfinite(part)).sum()) for part in parts)


def read_factors(
    source: ByteSource, metadata: PatchMetadata, header: Header, name: str
) -> tuple[Factor, ...]:
    """Read the factors of one tensor as they are stored, finite or not."""
    tensor = metadata.tensors[name]
    factors = []
    for index, meta in enumerate(tensor.factors):
        parts = {
            part: _read_tensor(source, header.tensors[part_name(name, index, part)])
            for part in meta.parts(tensor.d_out, tensor.d_in)
        }
        factors.append(_factor(meta, parts))
    return tuple(factors)


def _factor(meta: FactorMeta, parts: dict[str, Tensor]) -> Factor:
    if meta.side is None:
        return Additive(**parts) if meta.kind == "additive" else AdditiveDense(**parts)
    if meta.kind == "rotation-blocks":
        return RotationBlocks(meta.side, **parts)
    return Rotation(meta.side, **parts)


def _read_tensor(source: ByteSource, info: TensorInfo) -> Tensor:
    # A bytearray, because torch warns about memory that cannot be written to.
    data = bytearray(source.read(info.start, info.end))
    return torch.frombuffer(data, dtype=torch_dtype(info.dtype)).reshape(info.shape)
