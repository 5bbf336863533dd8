"""One block of weights as corrections to a prediction of them, and back.

Patterns of floating-point numbers, read as integers in the order of the numbers, differ by the
number of units in the last place between them. Predictions may differ in their last digits from
machine to machine; a weight whose prediction lies so near to the middle between two neighbours
that this could matter is stored as it is.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchkit.errors import FormatError
from patchkit.patch.parts import tensor_bytes
from patchkit.undo.coding import Unsigned, decode, encode

HEAD = struct.Struct("<BII")  # kind, weights, bytes that follow
_RAW, _CODED = 0, 1
_LENGTH = struct.Struct("<I")
_DOUBT = 1e-12
"""Relative error that a prediction may have, a thousand times what sums in fp64 have."""

_Unsigned: TypeAlias = type[np.unsignedinteger[Any]]
_AS: dict[int, tuple[torch.dtype, _Unsigned]] = {
    2: (torch.int16, np.uint16),
    4: (torch.int32, np.uint32),
}


def encode_block(wanted: Tensor, moved: Tensor, predicted: Tensor) -> bytes:
    """Return what takes the prediction to `wanted`, or `wanted` itself where that is smaller.

    All are (n, columns): `wanted` and `moved` in the stored type, weights of the base and of the
    patched folder; `predicted` in fp64, what the inverse makes of `moved`.
    """
    raw = tensor_bytes(wanted)
    kind, payload = _RAW, raw
    if wanted.element_size() in _AS:
        coded = _coded(wanted, predicted, _doubt(moved, predicted))
        if len(coded) < len(raw):
            kind, payload = _CODED, coded
    return HEAD.pack(kind, wanted.numel(), len(payload)) + payload


def payload_size(head: bytes, predicted: Tensor, itemsize: int) -> int:
    """Return the bytes that follow the head of a block; FormatError if it cannot be this block."""
    _, count, size = HEAD.unpack(head)
    if count != predicted.numel() or size > count * itemsize:
        raise FormatError(f"a block of {predicted.numel()} weights announces {count} in {size}")
    return int(size)


def decode_block(head: bytes, payload: bytes, predicted: Tensor, dtype: torch.dtype) -> bytes:
    """Return the bytes of the weights; FormatError if the block is damaged."""
    kind, count, _ = HEAD.unpack(head)
    if kind == _RAW and len(payload) == count * dtype.itemsize:
        return payload
    if kind != _CODED or dtype.itemsize not in _AS or len(payload) < _LENGTH.size:
        raise FormatError(f"a block of kind {kind} has {len(payload)} bytes")
    (length,) = _LENGTH.unpack_from(payload)
    end = _LENGTH.size + length
    pattern = _AS[dtype.itemsize][1]
    change = unfolded(decode(payload[_LENGTH.size : end], count, pattern))
    patterns = _patterns(order_of(predicted.to(dtype)) + change)
    _put(patterns, payload[end:])
    return patterns.tobytes()


def _coded(wanted: Tensor, predicted: Tensor, doubt: float) -> bytes:
    target = order_of(wanted)
    change = folded(target - order_of(predicted.to(wanted.dtype)))
    low, high = (predicted - doubt).to(wanted.dtype), (predicted + doubt).to(wanted.dtype)
    doubtful = np.flatnonzero((low != high).numpy())
    change[doubtful] = 0
    coded = encode(change)
    exact = (doubtful.astype("<u4"), _patterns(target[doubtful]))
    return b"".join([_LENGTH.pack(len(coded)), coded, *(part.tobytes() for part in exact)])


def _put(patterns: Unsigned, exact: bytes) -> None:
    """Write the weights that are stored as they are over the corrected ones."""
    count, left = divmod(len(exact), 4 + patterns.itemsize)
    places = np.frombuffer(exact, "<u4", count)
    if left or (count and int(places.max()) >= len(patterns)):
        raise FormatError(f"a block of {len(patterns)} weights holds others as they are")
    patterns[places] = np.frombuffer(exact, patterns.dtype, count, 4 * count)


def _doubt(moved: Tensor, predicted: Tensor) -> float:
    change = predicted - moved
    return _DOUBT * max(float(moved.abs().max()), float(change.abs().max()))


def order_of(values: Tensor) -> Unsigned:
    """Integers (n,) that are ordered as the numbers are, neighbours one apart, −0 before 0."""
    signed, unsigned = _AS[values.element_size()]
    found: Unsigned = values.contiguous().view(signed).numpy().view(unsigned).ravel()
    top = unsigned(1 << (8 * found.itemsize - 1))
    return np.where(found & top, ~found, found | top)


def _patterns(order: Unsigned) -> Unsigned:
    """The inverse of `order_of`."""
    top = order.dtype.type(1 << (8 * order.itemsize - 1))
    return np.where(order & top, order ^ top, ~order)


def folded(change: Unsigned) -> Unsigned:
    """Differences, 0, −1, 1, −2, …, as 0, 1, 2, 3, …"""
    signed: NDArray[Any] = change.view(f"i{change.itemsize}")
    return ((signed << 1) ^ (signed >> (8 * change.itemsize - 1))).view(change.dtype)


def unfolded(code: Unsigned) -> Unsigned:
    """The inverse of `folded`."""
    one = code.dtype.type(1)
    return (code >> one) ^ (~(code & one) + one)
