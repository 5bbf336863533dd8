"""The two formats of Xet storage, read as far as a server has to: xorbs and shards.

A xorb is a row of chunks, each behind a header of 8 bytes. A shard says of which chunks a file
consists, in entries of 48 bytes. Source: https://huggingface.co/docs/xet/xorb and …/shard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_FOOTER = b"XETBLOB"
_TAG = b"HFRepoMetaData\0"
_HEAD = _ENTRY = 48
_END = b"\xff" * 32
_VERIFIED, _EXTENDED = 1 << 31, 1 << 30
_LZ4 = 0x184D2204
_BLOCK_SUMS, _CONTENT_SIZE, _DICTIONARY = 1 << 4, 1 << 3, 1


@dataclass(frozen=True)
class Chunk:
    """Where a chunk and its header lie in a xorb, how it is packed, and its size unpacked."""

    start: int
    end: int
    scheme: int
    size: int


@dataclass(frozen=True)
class Term:
    """Chunks `first` to `last`, exclusive, of a xorb: the next `size` bytes of a file."""

    xorb: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class File:
    """A file of a shard."""

    name: str
    sha256: str
    terms: tuple[Term, ...]


def chunks(xorb: bytes) -> list[Chunk]:
    """The chunks of a xorb, with or without its footer."""
    found, start = [], 0
    while start < len(xorb) and not xorb.startswith(_FOOTER, start):
        packed = int.from_bytes(xorb[start + 1 : start + 4], "little")
        size = int.from_bytes(xorb[start + 5 : start + 8], "little")
        found.append(Chunk(start, start + 8 + packed, xorb[start + 4], size))
        start = found[-1].end
    return found


def unpacked(xorb: bytes, chunk: Chunk) -> bytes:
    """The content of a chunk; ValueError where that has another size."""
    data = xorb[chunk.start + 8 : chunk.end]
    if chunk.scheme:
        data = _lz4(data)
    if chunk.scheme == 2:
        data = _ungrouped(data)
    if len(data) != chunk.size:
        raise ValueError(f"a chunk of {chunk.size} bytes has {len(data)}")
    return data


def files(shard: bytes) -> Iterator[File]:
    """The files of a shard."""
    if not shard.startswith(_TAG):
        raise ValueError("this is not a shard")
    at = _HEAD
    while not shard.startswith(_END, at):
        flags, count = struct.unpack_from("<II", shard, at + 32)
        rows = [at + _ENTRY * (1 + number) for number in range(count)]
        terms = tuple(
            Term(_name(shard, row), *struct.unpack_from("<III", shard, row + 36)) for row in rows
        )
        behind = at + _ENTRY * (1 + count * (2 if flags & _VERIFIED else 1))
        if not flags & _EXTENDED:
            raise ValueError("a file without its sha256")
        yield File(_name(shard, at), _name(shard, behind), terms)
        at = behind + _ENTRY


def _name(data: bytes, at: int) -> str:
    """A hash as text: four little-endian numbers of 8 bytes."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", data, at))


def _ungrouped(data: bytes) -> bytes:
    """First all first bytes of each four were stored, then all second ones, and so on."""
    whole, at = bytearray(len(data)), 0
    for place in range(4):
        count = len(range(place, len(data), 4))
        whole[place::4] = data[at : at + count]
        at += count
    return bytes(whole)


def _lz4(frame: bytes) -> bytes:
    """Unpack an LZ4 frame; its checksums are not compared."""
    magic, flags = struct.unpack_from("<IB", frame)
    if magic != _LZ4:
        raise ValueError("this is not an LZ4 frame")
    at = 7 + (8 if flags & _CONTENT_SIZE else 0) + (4 if flags & _DICTIONARY else 0)
    made = bytearray()
    while size := struct.unpack_from("<I", frame, at)[0]:
        at += 4
        block = frame[at : at + (size & 0x7FFFFFFF)]
        made += block if size >> 31 else b""
        if not size >> 31:
            _lz4_block(block, made)
        at += len(block) + (4 if flags & _BLOCK_SUMS else 0)
    return bytes(made)


def _lz4_block(block: bytes, made: bytearray) -> None:
    """Append what a block holds to what came before it, to which it may refer."""
    at = 0
    while at < len(block):
        token = block[at]
        count, at = _length(block, at + 1, token >> 4)
        made += block[at : at + count]
        at += count
        if at >= len(block):
            return
        back = int.from_bytes(block[at : at + 2], "little")
        count, at = _length(block, at + 2, token & 15)
        count += 4
        piece = bytes(made[-back:])[:count]
        made += (piece * (count // len(piece) + 1))[:count]


def _length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """A length whose first four bits are 15 goes on in bytes, the last of which is not 255."""
    if length == 15:
        while True:
            length, at = length + block[at], at + 1
            if block[at - 1] != 255:
                break
    return length, at
