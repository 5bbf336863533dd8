"""The only place that prints: results on stdout, everything else on stderr."""

import json as json_module
import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from .errors import ExitCode, Failure

Mode = Literal["human", "json", "quiet"]

_ASCII = str.maketrans(
    {"✓": "ok", "✗": "failed", "×": "x", "≤": "<=", "≥": ">=", "…": "...", "°": " deg", "→": "->"}
)
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def escaped(text: str) -> str:
    """`text` with everything invisible or obeyed by a terminal written as an escape."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def to_json(data: object, encoding: str = "utf-8") -> str:
    """One line of JSON that a terminal can show: no raw control character survives."""
    ascii_only = not encoding.lower().startswith("utf")
    text = json_module.dumps(_plain(data), ensure_ascii=ascii_only, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _plain(value: object) -> object:
    """`value` as JSON can hold it; JSON has no infinity, so such numbers become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


class Row:
    """One row of a table, with a note to stand under it."""

    def __init__(self, *cells: object, note: str = "", style: str = "") -> None:
        self.cells = cells
        self.note = note
        self.style = style


@dataclass(frozen=True, slots=True)
class Out:
    """One command's output in one mode; human text is dropped in the two other modes."""

    command: str
    mode: Mode
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def choose(cls, command: str, *, json: bool, quiet: bool) -> "Out":
        """The output that `--json` or `-q` asks for; a usage error if both do."""
        if json and quiet:
            raise typer.BadParameter("--json and --quiet exclude each other")
        return cls(command, "json" if json else "quiet" if quiet else "human")

    @property
    def seconds(self) -> float:
        """Seconds since the command began."""
        return round(time.monotonic() - self.started, 3)

    def line(self, text: str = "", style: str = "") -> None:
        """A line of human text."""
        if self.mode == "human":
            _write(sys.stdout, text, style)

    def done(self, message: str) -> None:
        """`✓ message`."""
        if self.mode == "human":
            _write_marked(sys.stdout, "✓", "green", message)

    def failed(self, message: str) -> None:
        """`✗ message`."""
        if self.mode == "human":
            _write_marked(sys.stdout, "✗", "red", message)

    def fields(self, pairs: Mapping[str, object], indent: int = 2) -> None:
        """Aligned keys and values; pairs whose value is None are left out."""
        shown = {key: value for key, value in pairs.items() if value is not None}
        width = max(map(cell_len, shown), default=0)
        for key, value in shown.items():
            self.line(f"{'':{indent}}{_padded(key, width)}  {value}")

    def table(self, heads: Sequence[str], rows: Sequence[Row], right: str = "") -> None:
        """Columns under capital heads; `right` holds an R for each column aligned to the right."""
        if not rows:
            return
        cells = [list(heads), *([escaped(str(cell)) for cell in row.cells] for row in rows)]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        styles = ["dim", *(row.style for row in rows)]
        notes = ["", *(row.note for row in rows)]
        for texts, style, note in zip(cells, styles, notes, strict=True):
            columns = zip(texts, widths, right.ljust(len(widths)), strict=True)
            text = "  ".join(_padded(cell, width, side == "R") for cell, width, side in columns)
            self.line(text.rstrip(), style)
            if note:
                self.line(f"  {note}", style)

    def result(self, data: Mapping[str, object], *, quiet: str | None, ok: bool = True) -> None:
        """What a program reads: the JSON object, or with `-q` the one value that matters."""
        if self.mode == "json":
            schema = f"patchkit.{self.command}/1"
            _write_json(sys.stdout, {"schema": schema, "ok": ok, **data})
        elif self.mode == "quiet" and quiet is not None:
            _write(sys.stdout, quiet)

    def records(self, records: Iterable[Mapping[str, object]]) -> None:
        """With `-q`, data of several lines: one JSON object each."""
        if self.mode == "quiet":
            for record in records:
                _write_json(sys.stdout, record)

    def values(self, values: Iterable[str]) -> None:
        """With `-q`, the values that matter, one a line."""
        if self.mode == "quiet":
            for value in values:
                _write(sys.stdout, value)

    def warn(self, message: str) -> None:
        """A warning on stderr."""
        if self.mode != "quiet":
            _write_marked(sys.stderr, "warning:", "yellow", message)

    def hint(self, command: str) -> None:
        """What to run next, on stderr; nothing with `-q`."""
        if self.mode == "human":
            _write(sys.stderr, "")
        if self.mode != "quiet":
            _write_marked(sys.stderr, "hint:", "cyan", command)

    def error(self, failure: Failure) -> None:
        """A failure on stderr: a sentence, a comparison, a hint; one JSON line with `--json`."""
        if failure.traceback is not None:
            print(failure.traceback, file=sys.stderr)
        if self.mode == "json":
            _write_json(sys.stderr, _error_object(failure))
            return
        _write_marked(sys.stderr, "error:", "bold red", failure.message)
        for line in failure.lines:
            _write(sys.stderr, f"  {line}")
        if failure.hint is not None:
            self.hint(failure.hint)

    def verdict(self, ok: bool) -> None:
        """End with exit code 3 unless `ok`."""
        if not ok:
            raise typer.Exit(ExitCode.NEGATIVE)


def _error_object(failure: Failure) -> Mapping[str, object]:
    return {
        "schema": "patchkit.error/1",
        "ok": False,
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "details": failure.details,
    }


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _write_json(stream: TextIO, data: Mapping[str, object]) -> None:
    print(to_json(data, stream.encoding or "utf-8"), file=stream, flush=True)


def _write(stream: TextIO, text: str, style: str = "") -> None:
    _console(stream).print(Text(_encodable(escaped(text), stream), style), soft_wrap=True)


def _write_marked(stream: TextIO, mark: str, style: str, text: str) -> None:
    marked = Text(_encodable(mark, stream), style)
    marked.append(" " + _encodable(escaped(text), stream), "default")
    _console(stream).print(marked, soft_wrap=True)


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _encodable(text: str, stream: TextIO) -> str:
    """`text` in what `stream` can encode: plain letters for the symbols, escapes for the rest."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(_ASCII)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text
