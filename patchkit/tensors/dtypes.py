"""The element types of safetensors files, by the names that stand in their headers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from patchkit.errors import FormatError

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

EDITABLE = ("F64", "F32", "F16", "BF16")
"""Types whose values can be rotated and rounded once without losing the edit."""


def itemsize(dtype: str) -> int:
    """Bytes of one element; FormatError for an unknown type or one smaller than a byte."""
    return nbytes(dtype, (1,))


def nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense tensor; FormatError for an unknown type or a fraction of a byte."""
    bits = _BITS.get(dtype)
    if bits is None:
        raise FormatError(f"unknown tensor type {dtype!r}; known are {', '.join(_BITS)}")
    total = bits * prod(shape)
    if total % 8:
        raise FormatError(f"{total} bits of type {dtype} do not fill whole bytes")
    return total // 8
