"""Files that are passed in with `--data` and never committed, pinned by digest."""

from __future__ import annotations

import hashlib
from pathlib import Path


class DataError(ValueError):
    """A file is missing or is not the edition that a test bed is made of."""


def read_pinned(data: Path, name: str, digest: str) -> bytes:
    """Return a file of the data folder; DataError if it is missing or has another sha256."""
    path = data / name
    if not path.is_file():
        raise DataError(f"{path} is missing; pass the folder that holds {name} with --data")
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != digest:
        raise DataError(f"{path} has another sha256 than the pinned {digest}")
    return raw
