"""The same element types as torch knows them."""

from __future__ import annotations

import torch
from torch import Tensor

from patchkit.errors import FormatError

_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {value: key for key, value in _TORCH.items()}


def torch_dtype(name: str) -> torch.dtype:
    """Torch type of a safetensors type name; FormatError when patchkit does not compute in it."""
    try:
        return _TORCH[name]
    except KeyError:
        raise FormatError(f"tensors of type {name!r} cannot be computed with") from None


def dtype_name(dtype: torch.dtype) -> str:
    """Safetensors name of a torch type; FormatError when there is none."""
    try:
        return _NAMES[dtype]
    except KeyError:
        raise FormatError(f"tensors of type {dtype} cannot be stored") from None


def spacing(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the unit in the last place of `dtype` at each magnitude, in fp64."""
    kind = torch.finfo(dtype)
    size = values.abs().to(torch.float64).clamp_min(kind.smallest_normal)
    return torch.ldexp(torch.full_like(size, kind.eps), torch.frexp(size).exponent - 1)
