"""How long work tells its caller where it is, without printing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the phases of a long operation; amounts are in the unit that `started` named."""

    def started(self, phase: str, total: int | None, unit: str) -> None:
        """Begin a phase of `total` units, None when the length is unknown."""

    def advanced(self, phase: str, amount: int = 1) -> None:
        """Count `amount` further units as done."""

    def finished(self, phase: str) -> None:
        """End a phase, done or abandoned."""


class _Silent:
    def started(self, phase: str, total: int | None, unit: str) -> None:
        pass

    def advanced(self, phase: str, amount: int = 1) -> None:
        pass

    def finished(self, phase: str) -> None:
        pass


SILENT: Progress = _Silent()


@contextmanager
def phase(
    progress: Progress, name: str, total: int | None = None, unit: str = ""
) -> Iterator[Callable[[int], None]]:
    """Open one phase and yield the function that advances it; it is finished on errors too."""
    progress.started(name, total, unit)
    try:
        yield lambda amount: progress.advanced(name, amount)
    finally:
        progress.finished(name)
