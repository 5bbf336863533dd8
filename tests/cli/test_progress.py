"""Progress: lines where nobody watches, bars on a terminal, silence when asked."""

import io
import sys
from contextlib import suppress

import pytest

from patchkit.events import SILENT, Progress, phase
from patchkit_cli.output import Out
from patchkit_cli.progress import PhaseLines, shown
from patchkit_cli.units import count, duration, quantity, size


def work(progress: Progress) -> None:
    with phase(progress, "reading facts", 3, "facts") as advance:
        advance(1)
        advance(2)
    with phase(progress, "writing", None, "B") as advance:
        advance(2_500_000)


def test_one_line_per_phase_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(Out("x", "human")) as progress:
        assert isinstance(progress, PhaseLines)
        work(progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "reading facts: 3 facts in 0.0s\nwriting: 2.5 MB in 0.0s\n"


@pytest.mark.parametrize("mode", ["json", "quiet"])
def test_programs_see_no_progress(mode: str) -> None:
    out = Out.choose("x", json=mode == "json", quiet=mode == "quiet")
    with shown(out) as progress:
        assert progress is SILENT


def test_progress_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHKIT_NO_PROGRESS", "1")
    with shown(Out("x", "human")) as progress:
        assert progress is SILENT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_show_amounts_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown(Out("x", "human")) as progress:
        work(progress)
        progress.started("optimising", 120, "facts")
        progress.advanced("optimising", 97)
        progress.finished("optimising")
    text = terminal.getvalue()
    assert "reading facts" in text
    assert "eta" in text


def test_bars_end_with_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with suppress(RuntimeError), shown(Out("x", "human")) as progress:
        progress.started("optimising", 120, "facts")
        raise RuntimeError
    assert terminal.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # cursor shown, bar erased


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (9_437_184, "9.44 MB"), (4e12, "4 TB")],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (9.14, "9.1s"), (362.1, "6m 02s"), (3840, "1h 04m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert (count(1, "fact"), count(2, "fact")) == ("1 fact", "2 facts")
    assert (quantity(1, "facts"), quantity(0.314, "facts")) == ("1 fact", "0.314 facts")
