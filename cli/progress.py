"""Progress of the library on stderr: bars on a terminal, otherwise one line per phase."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from patchkit.events import SILENT, Progress

from .output import Out, escaped
from .units import duration, quantity

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def shown(out: Out) -> Iterator[Progress]:
    """The progress sink for one command; bars are gone when the block ends, however it ends."""
    if out.mode != "human" or os.environ.get("PATCHKIT_NO_PROGRESS"):
        yield SILENT
    elif not sys.stderr.isatty():
        yield PhaseLines()
    else:
        bars = _bars()
        with bars:
            yield PhaseBars(bars)


class PhaseLines:
    """One line on stderr when a phase ends: its name, how much, how long."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[float, int, str]] = {}

    def started(self, phase: str, total: int | None, unit: str) -> None:
        """Remember when `phase` began."""
        self._running[phase] = (time.monotonic(), 0, unit)

    def advanced(self, phase: str, amount: int = 1) -> None:
        """Count `amount` more."""
        began, done, unit = self._running[phase]
        self._running[phase] = (began, done + amount, unit)

    def finished(self, phase: str) -> None:
        """Print the line."""
        began, done, unit = self._running.pop(phase)
        amount = f"{quantity(done, unit)} in " if done else ""
        line = f"{escaped(phase)}: {amount}{duration(time.monotonic() - began)}"
        print(line, file=sys.stderr, flush=True)


class PhaseBars:
    """One bar per running phase, with rate and time left."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def started(self, phase: str, total: int | None, unit: str) -> None:
        """Show a bar; without a total it pulses."""
        task = self._bars.add_task(escaped(phase), total=total, unit=unit)
        self._tasks[phase] = task

    def advanced(self, phase: str, amount: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._tasks[phase], amount)

    def finished(self, phase: str) -> None:
        """Take the bar away."""
        self._bars.remove_task(self._tasks.pop(phase))


def _bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Amount(ProgressColumn):
        """`97/120 facts  3.1 facts/s`."""

        def render(self, task: Task) -> Text:
            unit = str(task.fields["unit"])
            whole = "" if task.total is None else f" of {quantity(task.total, unit)}"
            rate = f"  {quantity(task.speed, unit)}/s" if task.speed else ""
            return Text(f"{quantity(task.completed, unit)}{whole}{rate}")

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(),
        TextColumn("eta"),
        TimeRemainingColumn(compact=True),
        console=Console(file=sys.stderr),
        transient=True,
    )
