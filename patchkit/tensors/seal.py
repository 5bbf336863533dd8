"""Completing a file around ranges that are written elsewhere, with its digest on the way.

One pass in the order of the file: what is kept is copied and hashed while it is in the processor's
cache, what is written elsewhere is hashed once it is there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path

from patchkit.tensors.source import FileSource

PIECE = 256 << 10
"""Bytes moved at a time: larger ones leave the processor's cache, and Linux writes them slower."""


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes [start, end) that somebody else writes; `wait` returns when they are there."""

    start: int
    end: int
    wait: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that is complete and on the disk: digests of `source` and of it, and bytes copied."""

    before: str
    after: str
    copied: int


def seal(
    source: Path,
    target: Path,
    written: Sequence[Written],
    *,
    shared: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Sealed:
    """Complete `target`, which has the size of `source` already, and bring it to the disk.

    Bytes outside the ranges are copied, unless the files are `shared`, as after a reflink. `check`
    is called between pieces and may raise to stop. Raises OSError, and FormatError if the source
    cannot be read.
    """
    after, before, copied = sha256(), None, 0  # one state serves both up to the first difference
    with FileSource(source).open() as reader, FileIO(target, "r+") as writer:
        size = os.fstat(reader.fileno()).st_size
        for start, end, wait in _segments(size, written):
            if wait is not None:
                wait()
                before = before or after.copy()
                for piece in _pieces(reader, start, end, check):
                    before.update(piece)
                for piece in _pieces(writer, start, end, check):
                    after.update(piece)
                continue
            writer.seek(start)
            for piece in _pieces(reader, start, end, check):
                after.update(piece)
                if before is not None:
                    before.update(piece)
                if not shared:
                    write_all(writer, piece)
                    copied += len(piece)
        os.fsync(writer.fileno())
    first, last = (before or after).hexdigest(), after.hexdigest()
    return Sealed("sha256:" + first, "sha256:" + last, copied)


def write_all(file: FileIO, data: memoryview) -> None:
    """Write all of `data` where the file stands; OSError if the disk takes fewer."""
    while data:
        data = data[file.write(data[:PIECE]) :]


def read_all(file: FileIO, into: memoryview) -> None:
    """Fill `into` from where the file stands; OSError if it ends before."""
    while into:
        count = file.readinto(into[:PIECE])
        if not count:
            raise OSError(errno.EIO, f"file ended at byte {file.tell()} while it was read")
        into = into[count:]


def _segments(
    size: int, written: Sequence[Written]
) -> Iterator[tuple[int, int, Callable[[], object] | None]]:
    position = 0
    for part in sorted(written, key=lambda part: part.start):
        yield position, part.start, None
        yield part.start, part.end, part.wait
        position = part.end
    yield position, size, None


def _pieces(file: FileIO, start: int, end: int, check: Callable[[], None]) -> Iterator[memoryview]:
    """Bytes [start, end) of a file in pieces, each valid until the next."""
    buffer = memoryview(bytearray(PIECE))
    file.seek(start)
    position = start
    while position < end:
        check()
        piece = buffer[: end - position]
        read_all(file, piece)
        yield piece
        position += len(piece)
