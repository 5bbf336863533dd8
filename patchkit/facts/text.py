"""What may stand in a fact's text, and the problems that say what may not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patchkit.errors import FactsError

PLACEHOLDER = "{}"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_BREAKS = re.compile(r"[\t\n\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line (from 1) or record (from 0), and what would mend it.

    `kind` is "invalid" for what cannot be used; duplicates and contradictions can be settled.
    """

    line: int | None
    key: str | None
    message: str
    suggestion: str | None = None
    record: int | None = None
    kind: Literal["invalid", "duplicate", "contradiction"] = "invalid"

    def __str__(self) -> str:
        return self.message if self.suggestion is None else f"{self.message}; {self.suggestion}"


def text_problems(key: str, text: str, *, one_line: bool = False) -> list[Problem]:
    """Why `text` cannot stand under `key`: empty, or with characters no text should have."""
    if not text.strip():
        return [Problem(None, key, f'"{key}" is empty')]
    found = _UNPRINTABLE.search(text) or (_LINE_BREAKS.search(text) if one_line else None)
    if found is None:
        return []
    what = "half of a surrogate pair" if found[0] >= "\ud800" else "the control character"
    message = f'"{key}" contains {what} U+{ord(found[0]):04X} at character {found.start() + 1}'
    return [Problem(None, key, message, "remove it")]


def texts_problems(key: str, texts: Sequence[str]) -> list[Problem]:
    """Why one of `texts` cannot stand in the list under `key`."""
    return [problem for text in texts for problem in text_problems(key, text)]


def invalid(*problems: Problem) -> FactsError:
    """The error that carries `problems`, with their text as its sentence."""
    return FactsError("; ".join(map(str, problems)), problems=problems)
