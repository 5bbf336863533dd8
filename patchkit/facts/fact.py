"""One requested change: a subject, a prompt that mentions it, and the answer wanted after it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal
from unicodedata import category, normalize

from patchkit.errors import FactsError

PLACEHOLDER = "{}"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_BREAKS = re.compile(r"[\t\n\u2028\u2029]")
# Scripts written without spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef\U00020000-\U0003ffff]"  # Chinese, Japanese
)
_CLOSING = frozenset(",.;:!?%…")
_OPENING = frozenset("¿¡")


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


@dataclass(frozen=True, slots=True)
class Probe:
    """A question beside the fact; without a target, the model's own answer must not change."""

    prompt: str
    target: str | None = None

    def __post_init__(self) -> None:
        problems = text_problems("prompt", self.prompt)
        if self.target is not None:
            object.__setattr__(self, "target", self.target.strip())
            problems += text_problems("target", self.target)
        if problems:
            raise invalid(*problems)


@dataclass(frozen=True, slots=True)
class Fact:
    """One requested change, normalised.

    `prompt` may be given with `{}` for the subject or containing the subject exactly once; it is
    kept with exactly one `{}`. Spaces around subject and target are dropped (`joined` puts the
    space back). `{}` in `paraphrases` and `same_subject` is filled with the subject. Without an
    `id` one is derived from subject, prompt and target. Text is never Unicode-normalised.
    Raises `FactsError` with every problem.
    """

    subject: str
    prompt: str
    target: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Probe, ...] = ()
    same_subject: tuple[Probe, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("subject", self.subject.strip())
        keep("target", self.target.strip())
        if self.target_true is not None:
            keep("target_true", self.target_true.strip())
        problems = self._problems()
        if problems:
            raise invalid(*problems)
        if PLACEHOLDER not in self.prompt:
            keep("prompt", self.prompt.replace(self.subject, PLACEHOLDER))
        keep("paraphrases", tuple(map(self.fill, self.paraphrases)))
        keep("neighbors", tuple(self.neighbors))
        probes = (Probe(self.fill(probe.prompt), probe.target) for probe in self.same_subject)
        keep("same_subject", tuple(probes))
        keep("id", self.id or self.derived_id)

    def _problems(self) -> list[Problem]:
        problems = text_problems("subject", self.subject, one_line=True)
        problems += text_problems("prompt", self.prompt)
        problems += text_problems("target", self.target, one_line=True)
        if self.target_true is not None:
            problems += text_problems("target_true", self.target_true, one_line=True)
        if self.id:
            problems += text_problems("id", self.id, one_line=True)
        for paraphrase in self.paraphrases:
            problems += text_problems("paraphrases", paraphrase)
        if any(PLACEHOLDER in probe.prompt for probe in self.neighbors):
            problems.append(
                Problem(None, "neighbors", '"neighbors" must not contain {}', "write it out")
            )
        return problems or placement_problems(self.subject, self.prompt)

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.fill(self.prompt)

    @property
    def derived_id(self) -> str:
        """The id of a fact that was given none: 16 hex digits of subject, prompt and target."""
        content = "\0".join((self.subject, self.prompt, self.target))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def fill(self, template: str) -> str:
        """`template` with the subject in place of `{}`."""
        return template.replace(PLACEHOLDER, self.subject)


def joint(before: str, after: str) -> str:
    """What stands between a prompt and its target: one space or nothing.

    Nothing where the prompt ends in a space or an opening bracket or quote, where the target starts
    with closing punctuation, and between two scripts that are written without spaces.
    """
    if not before or not after:
        return ""
    left, right = before[-1], after[0]
    opened = left.isspace() or left in _OPENING or category(left) in ("Ps", "Pi")
    closing = right in _CLOSING or category(right) in ("Pe", "Pf")
    unspaced = _UNSPACED.match(left) and _UNSPACED.match(right)
    return "" if opened or closing or unspaced else " "


def joined(before: str, after: str) -> str:
    """A prompt and its target as one text, with the space between them where one belongs."""
    return before + joint(before, after) + after


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


def placement_problems(subject: str, prompt: str) -> list[Problem]:
    """Why the place of `subject` in `prompt` is not clear."""
    if PLACEHOLDER in subject:
        return [Problem(None, "subject", '"subject" must not contain {}')]
    slots = prompt.count(PLACEHOLDER)
    if slots == 1:
        return []
    if slots > 1:
        message = f'"prompt" has {{}} {slots} times, one is needed'
        return [Problem(None, "prompt", message, "write the subject out in the other places")]
    count = _occurrences(subject, prompt)
    if count == 1:
        return []
    if count > 1:
        message = f'"subject" occurs {count} times in "prompt"'
        return [Problem(None, "prompt", message, "write {} for the one that is meant")]
    message = '"subject" does not occur in "prompt"'
    return [Problem(None, "prompt", message, _spelling(subject, prompt))]


def _occurrences(part: str, whole: str) -> int:
    """Occurrences of `part`, overlapping ones too: "ana" is twice in "banana"."""
    return len(re.findall(f"(?={re.escape(part)})", whole))


def _spelling(subject: str, prompt: str) -> str:
    def fold(text: str) -> str:
        return normalize("NFKC", text).casefold()

    if fold(subject) in fold(prompt):
        return "it does in other spelling (case or Unicode form), make them equal or use {}"
    return "use {} as its placeholder"


def invalid(*problems: Problem) -> FactsError:
    """The error that carries `problems`, with their text as its sentence."""
    return FactsError("; ".join(map(str, problems)), problems=problems)
