"""Where a folder or a file was fetched from, kept beside it: locks and patches can then name it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SCHEME = "hf://"
_TEXT = re.compile(rf"{SCHEME}([\w.-]+/[\w.-]+)@([0-9a-f]{{40}})(?:/([\w.+/-]+))?", re.ASCII)
_MAX = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """A repository on the Hub at a commit, or one file of it."""

    repo: str
    revision: str
    path: str | None = None

    def __str__(self) -> str:
        """`hf://org/name@commit[/path]`."""
        return f"{SCHEME}{self.repo}@{self.revision}" + (f"/{self.path}" if self.path else "")

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """Read what `str` writes; None for anything else."""
        found = _TEXT.fullmatch(text.strip())
        return cls(found[1], found[2], found[3]) if found else None


def read_origin(place: Path) -> Origin | None:
    """Origin of a folder or file; None where nothing says so."""
    note = origin_note(place)
    if not note.is_file() or note.stat().st_size > _MAX:
        return None
    return Origin.parse(note.read_text(encoding="utf-8", errors="replace"))


def origin_note(place: Path) -> Path:
    """The hidden file that says where a folder, or a file, is from: the text of its Origin."""
    return (
        place / ".patchkit-origin" if place.is_dir() else place.with_name(f".{place.name}.origin")
    )
