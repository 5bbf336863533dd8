"""How much of an upload is on its way: bytes counted where the client reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from huggingface_hub import CommitOperationAdd


@dataclass(slots=True)
class Meter:
    """Tells `advance` of bytes, of `total` at most, however often a transfer begins again."""

    total: int
    advance: Callable[[int], object]
    done: int = 0

    def count(self, amount: int) -> None:
        """So many bytes more were read."""
        step = min(amount, self.total - self.done)
        self.done += step
        if step:
            self.advance(step)

    def finish(self) -> None:
        """Everything is there, also what was sent in a way that reads no file here (hf-xet)."""
        self.count(self.total)


class MeteredAdd(CommitOperationAdd):
    """A file to add whose bytes are counted by `meter` as they are read to be sent."""

    meter: Meter | None = None

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
        """The content as a file; with `with_tqdm`, which marks an upload, its reads are counted."""
        with super().as_file() as opened:
            file: Any = opened
            # Bytes in memory come as another kind of file, which cannot be counted, and are small.
            if with_tqdm and self.meter is not None and isinstance(opened, BufferedReader):
                read, count = file.read, self.meter.count

                def counted(size: int | None = -1) -> bytes:
                    data: bytes = read(size)
                    count(len(data))
                    return data

                file.read = counted
            yield file
