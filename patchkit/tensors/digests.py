"""Digests: `sha256:` and 64 hexadecimal digits, of bytes or of canonical JSON."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from patchkit.tensors.source import ByteSource, FileSource

_CHUNK = 1 << 20


def bytes_digest(data: bytes) -> str:
    """Digest of bytes in memory."""
    return "sha256:" + sha256(data).hexdigest()


def sha256_of_range(source: ByteSource, start: int, end: int) -> str:
    """Digest of bytes [start, end) of a source, read in blocks; FormatError if it is shorter."""
    state = sha256()
    for position in range(start, end, _CHUNK):
        state.update(source.read(position, min(position + _CHUNK, end)))
    return "sha256:" + state.hexdigest()


def file_digest(path: str | Path) -> str:
    """Digest of a whole file, read in blocks; FormatError if it cannot be read."""
    source = FileSource(path)
    return sha256_of_range(source, 0, source.size)


def canonical_json(value: object) -> bytes:
    """The one serialisation of a JSON value: UTF-8, sorted keys, no spaces, finite numbers only.

    Raises ValueError for NaN and infinities and for text that is not Unicode.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def json_digest(value: object) -> str:
    """Digest of the canonical serialisation of a JSON value."""
    return bytes_digest(canonical_json(value))
