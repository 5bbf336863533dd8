"""One requested change: a subject, a prompt that mentions it, and the answer wanted after it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from unicodedata import category, normalize

from patchkit.facts.probe import MultiHop, Probe
from patchkit.facts.text import PLACEHOLDER, Problem, invalid, text_problems, texts_problems

__all__ = ["PLACEHOLDER", "Fact", "MultiHop", "Probe", "Problem", "invalid", "joined", "joint"]

# Scripts written without spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef\U00020000-\U0003ffff]"  # Chinese, Japanese
)
_CLOSING = frozenset(",.;:!?%…")
_OPENING = frozenset("¿¡")
_GROWTH = 64
"""How many times longer a fact's texts may become when the subject is filled in."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One requested change, normalised.

    `prompt` may be given with `{}` for the subject or containing the subject exactly once; it is
    kept with exactly one `{}`. Spaces around subject and target are dropped (`joined` puts the
    space back). `{}` in all other prompts but `neighbors` is filled with the subject. Without an
    `id` one is derived from subject, prompt and target. Text is never Unicode-normalised.

    `portability` are consequences of the fact, `multihop` questions that need other facts too,
    `generation` prompts to write a text after, `reference` the name of the texts to compare it
    with. Raises `FactsError` with every problem.
    """

    subject: str
    prompt: str
    target: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Probe, ...] = ()
    same_subject: tuple[Probe, ...] = ()
    id: str = ""
    portability: tuple[Probe, ...] = ()
    multihop: tuple[MultiHop, ...] = ()
    generation: tuple[str, ...] = ()
    reference: str | None = None

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
        for name in ("paraphrases", "generation"):
            keep(name, tuple(map(self.fill, getattr(self, name))))
        keep("neighbors", tuple(self.neighbors))
        for name in ("same_subject", "portability", "multihop"):
            keep(name, tuple(probe.filled(self.subject) for probe in getattr(self, name)))
        keep("id", self.id or self.derived_id)

    def _problems(self) -> list[Problem]:
        problems = text_problems("subject", self.subject, one_line=True)
        problems += text_problems("prompt", self.prompt)
        problems += text_problems("target", self.target, one_line=True)
        if self.target_true is not None:
            problems += text_problems("target_true", self.target_true, one_line=True)
        if self.id:
            problems += text_problems("id", self.id, one_line=True)
        if self.reference is not None:
            problems += text_problems("reference", self.reference, one_line=True)
        problems += texts_problems("paraphrases", self.paraphrases)
        problems += texts_problems("generation", self.generation)
        if any(probe.target is None for probe in self.portability):
            problems.append(Problem(None, "portability", '"portability" needs targets'))
        if any(PLACEHOLDER in probe.prompt for probe in self.neighbors):
            problems.append(
                Problem(None, "neighbors", '"neighbors" must not contain {}', "write it out")
            )
        return problems or placement_problems(self.subject, self.prompt) or self._filling_problems()

    def _filling_problems(self) -> list[Problem]:
        """Why writing the subject into the other prompts would make them enormous."""
        asked = [probe.prompt for probe in (*self.same_subject, *self.portability)]
        asked += [prompt for case in self.multihop for prompt in case.prompts]
        texts = (self.subject, *self.paraphrases, *self.generation, *asked)
        slots = sum(text.count(PLACEHOLDER) for text in texts)
        if slots * len(self.subject) <= _GROWTH * sum(map(len, texts)):
            return []
        message = f'"subject" would be written {slots} times, of {len(self.subject)} characters'
        return [Problem(None, "subject", message, "shorten it")]

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
        message = '"subject" occurs more than once in "prompt"'
        return [Problem(None, "prompt", message, "write {} for the one that is meant")]
    message = '"subject" does not occur in "prompt"'
    return [Problem(None, "prompt", message, _spelling(subject, prompt))]


def _occurrences(part: str, whole: str) -> int:
    """Occurrences of `part`, 2 for more, overlapping ones too: "ana" is twice in "banana"."""
    first = whole.find(part)
    return 0 if first < 0 else 1 if whole.find(part, first + 1) < 0 else 2


def _spelling(subject: str, prompt: str) -> str:
    def fold(text: str) -> str:
        return normalize("NFKC", text).casefold()

    if fold(subject) in fold(prompt):
        return "it does in other spelling (case or Unicode form), make them equal or use {}"
    return "use {} as its placeholder"
