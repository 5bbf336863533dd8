"""Copies of files that share storage where the file system can, and leave chosen ranges out.

Hard links only where they are asked for: a link shares bytes with its original, so that editing
the copy in place would change the base.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

from patchkit.tensors.source import FileSource

Range = tuple[int, int]

_FICLONE = 0x40049409
_CHUNK = 64 << 20
_PENDING = 256 << 20  # bytes after which the disk gets to work while others still copy
_COMPARED = 1 << 20
_NOT_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def create(source: Path, target: Path) -> bool:
    """Create `target` with the size of `source`: True if by reflink, so that it is complete.

    Otherwise it is a hole that `fill` copies into, while other ranges of it can be written at the
    same time. Raises OSError, and FormatError if the source cannot be read.
    """
    with FileSource(source).open() as reader, FileIO(target, "x") as writer:
        if _reflink(reader, writer):
            return True
        writer.truncate(os.fstat(reader.fileno()).st_size)
        return False


def fill(
    source: Path,
    target: Path,
    *,
    leave_out: Sequence[Range] = (),
    check: Callable[[], None] = lambda: None,
) -> int:
    """Copy all bytes of `source` outside the given ranges to the disk; return how many.

    `check` is called between chunks and may raise to stop.
    """
    copied = pending = 0
    with FileSource(source).open() as reader, FileIO(target, "r+") as writer:
        for start, end in _kept(os.fstat(reader.fileno()).st_size, leave_out):
            for position in range(start, end, _CHUNK):
                check()
                pending += _copy_range(reader, writer, position, min(position + _CHUNK, end))
                if pending >= _PENDING:
                    os.fsync(writer.fileno())
                    copied, pending = copied + pending, 0
        os.fsync(writer.fileno())
    return copied + pending


def sync_file(path: Path) -> None:
    """Bring a file that others have written to the disk."""
    with FileIO(path, "r+") as file:
        os.fsync(file.fileno())


def hard_link(source: Path, target: Path) -> bool:
    """Replace the file `target` by a second name of `source`.

    False, with `target` as it was, where the file system has no links or is another one.
    """
    fresh = target.with_name(f".{target.name}.link")
    try:
        os.link(source.resolve(), fresh)
    except OSError:
        return False
    os.replace(fresh, target)
    return True


def same_bytes(one: FileSource, two: FileSource, *, leave_out: Sequence[Range] = ()) -> bool:
    """Tell whether files are equal outside some ranges; FormatError if one cannot be read."""
    return one.size == two.size and all(
        one.read(position, min(position + _COMPARED, end))
        == two.read(position, min(position + _COMPARED, end))
        for start, end in _kept(one.size, leave_out)
        for position in range(start, end, _COMPARED)
    )


def can_reflink(source: Path, folder: Path) -> bool:
    """Try whether a file can share its blocks with one in `folder`."""
    probe = folder / ".reflink"
    probe.unlink(missing_ok=True)  # a killed run may have left it
    try:
        return create(source, probe)
    finally:
        probe.unlink(missing_ok=True)


def _reflink(reader: FileIO, writer: FileIO) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        return False
    return True


def _kept(size: int, leave_out: Sequence[Range]) -> Iterator[Range]:
    position = 0
    for start, end in sorted(leave_out):
        yield position, start
        position = end
    yield position, size


def _copy_range(reader: FileIO, writer: FileIO, start: int, end: int) -> int:
    """Copy bytes [start, end) and return how many they are."""
    position = start
    while position < end:
        count = _in_kernel(reader, writer, position, end) or _by_hand(reader, writer, position, end)
        if not count:
            raise OSError(errno.EIO, f"file ended at byte {position} while it was copied")
        position += count
    return end - start


def _in_kernel(reader: FileIO, writer: FileIO, start: int, end: int) -> int:
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
    except OSError as error:
        if error.errno in _NOT_IN_KERNEL:
            return 0
        raise


def _by_hand(reader: FileIO, writer: FileIO, start: int, end: int) -> int:
    reader.seek(start)
    writer.seek(start)
    return writer.write(reader.read(min(end - start, 8 << 20)))
