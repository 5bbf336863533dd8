"""The angles of a patch's planes as a small picture, drawn without a drawing library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from math import ceil, log10

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, _TOP, _BOTTOM = 68, 632, 12, 188
_PALETTE = (
    (255, 255, 255), (221, 221, 221), (85, 85, 85),
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75),
)  # fmt: skip
_LINE, _INK, _FIRST = 1, 2, 3
_SCALE = 3
# Three columns and five rows a sign, from the upper left, as bits.
_SIGNS = dict(
    zip(
        "0123456789.",
        (
            0b111101101101111, 0b010110010010111, 0b111001111100111, 0b111001111001111,
            0b101101111001001, 0b111100111001111, 0b111100111101111, 0b111001010010010,
            0b111101111101111, 0b111101111001111, 0b000000000000010,
        ),
        strict=True,
    )
)  # fmt: skip

Pixels = NDArray[np.uint8]


def angle_plot(angles: Sequence[Sequence[float]]) -> bytes:
    """Draw angles in degrees as bars, largest first, and return the bytes of a PNG file.

    `angles` has those of each matrix, which share a colour; there must be one angle at least.
    """
    bars = sorted(
        ((angle, index) for index, found in enumerate(angles) for angle in found), reverse=True
    )
    top = _rounded(bars[0][0])
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for share in (0.0, 0.5, 1.0):
        row = round(_BOTTOM - share * (_BOTTOM - _TOP))
        pixels[row, LEFT:RIGHT] = _LINE
        _write(pixels, f"{share * top:.4g}", row)
    gap = 1 if 4 * len(bars) < RIGHT - LEFT else 0
    for column in range(RIGHT - LEFT):
        place = column * len(bars) // (RIGHT - LEFT)
        if gap and (column + 1) * len(bars) // (RIGHT - LEFT) != place:
            continue
        angle, index = bars[place]
        height = round(angle / top * (_BOTTOM - _TOP))
        colour = _FIRST + index % (len(_PALETTE) - _FIRST)
        pixels[_BOTTOM - height : _BOTTOM, LEFT + column] = colour
    pixels[_BOTTOM, LEFT:RIGHT] = _INK
    return _png(pixels)


def _rounded(largest: float) -> float:
    """The next of 1, 2, 5, 10, … at or above an angle; 0.01 at least."""
    largest = max(largest, 0.01)
    unit = 10.0 ** (ceil(log10(largest)) - 1)
    return next((step * unit for step in (1, 2, 5, 10) if step * unit >= largest), 10 * unit)


def _write(pixels: Pixels, text: str, row: int) -> None:
    """Write digits beside the axis, ending before it, around a row."""
    left = LEFT - 6 - 4 * _SCALE * len(text)
    for place, sign in enumerate(text):
        bits = [_SIGNS[sign] >> (14 - bit) & 1 for bit in range(15)]
        shape = np.kron(np.array(bits, np.uint8).reshape(5, 3), np.ones((_SCALE, _SCALE), np.uint8))
        x, y = left + 4 * _SCALE * place, min(max(row - 7, 0), HEIGHT - 5 * _SCALE)
        pixels[y : y + 5 * _SCALE, x : x + 3 * _SCALE] = shape * _INK


def _png(pixels: Pixels) -> bytes:
    """A PNG file with one byte a pixel, of the palette."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    colours = bytes(value for colour in _PALETTE for value in colour)
    parts = ((b"IHDR", size), (b"PLTE", colours), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
