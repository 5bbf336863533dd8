"""Factors as tensors of a file: their names, their bytes, and back."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor

from patchkit.errors import FormatError
from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import FactorMeta
from patchkit.patch.packing import part_name
from patchkit.patch.reader import PatchInfo
from patchkit.tensors.source import ByteSource
from patchkit.tensors.torch_dtypes import torch_dtype


def factor_parts(factor: Factor) -> dict[str, Tensor]:
    """Return a factor's tensors by their last name in the file, in the order of the file."""
    if isinstance(factor, Additive):
        return {"f": factor.f, "l": factor.l}
    return {"x": factor.x, "y": factor.y}


def factor_meta(factor: Factor) -> FactorMeta:
    """Return what the metadata says about a factor in its stored type."""
    state = sha256()
    for part in factor_parts(factor).values():
        state.update(tensor_bytes(part))
    side = None if isinstance(factor, Additive) else factor.side
    return FactorMeta(factor.kind, factor.rank, "sha256:" + state.hexdigest(), side)


def tensor_bytes(t: Tensor) -> bytes:
    """Return a tensor's values in row-major order, little-endian, without leaving its type."""
    flat = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().tobytes()


def read_factors(source: ByteSource, info: PatchInfo, name: str) -> tuple[Factor, ...]:
    """Read the factors of one tensor; FormatError if a value is not finite."""
    tensor = info.metadata.tensors[name]
    return tuple(
        _read_factor(source, info, name, index, meta) for index, meta in enumerate(tensor.factors)
    )


def _read_factor(
    source: ByteSource, info: PatchInfo, name: str, index: int, meta: FactorMeta
) -> Factor:
    tensor = info.metadata.tensors[name]
    parts = {
        part: _read_tensor(source, info, part_name(name, index, part))
        for part in meta.parts(tensor.d_out, tensor.d_in)
    }
    if meta.side is None:
        return Additive(l=parts["l"], f=parts["f"])
    return Rotation(side=meta.side, x=parts["x"], y=parts["y"])


def _read_tensor(source: ByteSource, info: PatchInfo, name: str) -> Tensor:
    entry = info.header.tensors[name]
    # A bytearray, because torch warns about memory that cannot be written to.
    data = bytearray(source.read(entry.start, entry.end))
    values = torch.frombuffer(data, dtype=torch_dtype(entry.dtype)).reshape(entry.shape)
    if not bool(torch.isfinite(values).all()):
        raise FormatError(f"{source.name} cannot be used: {name} holds values that are not finite")
    return values
