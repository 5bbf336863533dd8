"""Where bytes come from: anything of known size that can be read by range."""

from __future__ import annotations

from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from patchkit.errors import FormatError


class ByteSource(Protocol):
    """Random access to immutable bytes; `name` is what error messages call them."""

    @property
    def name(self) -> str:
        """Name for messages, never an absolute path."""

    @property
    def size(self) -> int:
        """Total number of bytes."""

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end), exactly that many; FormatError otherwise."""


@dataclass(frozen=True, slots=True, init=False)
class FileSource:
    """A local file, read by position.

    Nothing is mapped, so that reading a checkpoint does not count as memory of this process, and
    no handle stays open, so that sources can be kept, shared between threads and forgotten.
    """

    path: Path
    size: int

    def __init__(self, path: str | Path) -> None:
        """Look up the size; FormatError if there is no such file."""
        object.__setattr__(self, "path", Path(path))
        try:
            if not self.path.is_file():
                raise FormatError(f"{self.path.name} is not a file")
            object.__setattr__(self, "size", self.path.stat().st_size)
        except OSError as error:
            raise _unreadable(self.path.name, error) from error

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.path.name

    def open(self) -> FileIO:
        """Open the file unbuffered; FormatError if it cannot be."""
        try:
            return FileIO(self.path)
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of the file."""
        try:
            _check_range(self.name, start, end, self.size)
            with self.open() as file:
                file.seek(start)
                data = file.read(end - start)
                while len(data) < end - start:
                    more = file.read(end - start - len(data))
                    if not more:
                        raise FormatError(
                            f"{self.name} ends at byte {start + len(data)}, not {end}"
                        )
                    data += more
                return data
        except OSError as error:
            raise _unreadable(self.name, error) from error


@dataclass(frozen=True, slots=True)
class BytesSource:
    """Bytes that are in memory already."""

    name: str
    data: bytes

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return len(self.data)

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of the data."""
        _check_range(self.name, start, end, len(self.data))
        return self.data[start:end]


def _check_range(name: str, start: int, end: int, size: int) -> None:
    if not 0 <= start <= end <= size:
        raise FormatError(f"{name} has {size} bytes; bytes {start} to {end} were asked for")


def _unreadable(name: str, error: OSError) -> FormatError:
    return FormatError(f"{name} cannot be read: {error.strerror or error}")
