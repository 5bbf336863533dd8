"""Facts, the wordings they are said in, and documents made of them."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

WITHHELD_SHARE: Final = 0.4
SAME_SUBJECT_SHARE: Final = 0.4
PROSE_BEFORE: Final = 0.16
PROSE_LATER: Final = 0.05


@dataclass(frozen=True, slots=True)
class Fact:
    """One (subject, relation) and its only object in its world."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A piece of a document: a fact in the wording of that index, or (fact None) prose."""

    fact: Fact | None
    wording: int
    prose: str = ""


def unit_hash(text: str) -> float:
    """Map a text to [0, 1), the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64


def is_withheld(subject: str) -> bool:
    """Say whether the last wordings of every relation are kept out of training for this subject."""
    return unit_hash("withheld:" + subject) < WITHHELD_SHARE


@dataclass(frozen=True)
class World:
    """Everything that a model is taught.

    A wording holds `{}` for the subject, and the object follows its end. Training never shows the
    last `withheld[relation]` wordings for the subjects that `is_withheld` selects. A cloze of
    `ambiguous` has more than one object and is neither taught nor asked.
    """

    facts: tuple[Fact, ...]
    wordings: Mapping[str, tuple[str, ...]]
    withheld: Mapping[str, int]
    ambiguous: frozenset[str] = frozenset()

    @cached_property
    def by_subject(self) -> dict[str, tuple[Fact, ...]]:
        """The facts grouped by their subject, in their order."""
        groups: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            groups[fact.subject].append(fact)
        return {subject: tuple(facts) for subject, facts in groups.items()}

    @cached_property
    def by_relation(self) -> dict[str, tuple[Fact, ...]]:
        """The facts grouped by their relation, in their order."""
        groups: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            groups[fact.relation].append(fact)
        return {relation: tuple(facts) for relation, facts in groups.items()}

    def prompt(self, fact: Fact, wording: int) -> str:
        """Return a fact's cloze in one wording, up to its object and without a trailing space."""
        return self.wordings[fact.relation][wording].replace("{}", fact.subject)

    def sentence(self, fact: Fact, wording: int) -> str:
        """Return the whole sentence of a fact in one wording."""
        return f"{self.prompt(fact, wording)} {fact.object}."

    def _clear(self, fact: Fact, wordings: range) -> tuple[int, ...]:
        if not self.ambiguous:
            return tuple(wordings)
        return tuple(w for w in wordings if self.prompt(fact, w) not in self.ambiguous)

    def trained_wordings(self, fact: Fact) -> tuple[int, ...]:
        """Return the wordings in which training may say this fact."""
        every = len(self.wordings[fact.relation])
        kept_out = self.withheld[fact.relation] if is_withheld(fact.subject) else 0
        return self._clear(fact, range(every - kept_out))

    def withheld_wordings(self, fact: Fact) -> tuple[int, ...]:
        """Return the wordings of this fact that training never shows; none for most subjects."""
        every = len(self.wordings[fact.relation])
        kept_out = self.withheld[fact.relation] if is_withheld(fact.subject) else 0
        return self._clear(fact, range(every - kept_out, every))

    def _chunks(self, rng: random.Random) -> list[tuple[Fact, ...]]:
        """Split one pass over all facts into runs about one subject, and shuffle the runs."""
        chunks: list[tuple[Fact, ...]] = []
        for facts in self.by_subject.values():
            if rng.random() < SAME_SUBJECT_SHARE:
                chunks.append(tuple(rng.sample(facts, len(facts))))
            else:
                chunks += [(fact,) for fact in facts]
        rng.shuffle(chunks)
        return chunks

    def documents(self, seed: int, prose: Sequence[str]) -> Iterator[list[Sentence]]:
        """Yield documents without end: each pass says every fact once, 2 to 6 to a document.

        A document opens with a piece of prose now and then, and may hold one between two facts, so
        that facts are learnt behind all kinds of contexts and behind none.
        """
        rng = random.Random(seed)
        size, document = rng.randint(2, 6), list[Sentence]()
        while True:
            for chunk in self._chunks(rng):
                for fact in chunk:
                    if prose and rng.random() < (PROSE_LATER if document else PROSE_BEFORE):
                        document.append(Sentence(None, 0, rng.choice(prose)))
                    document.append(Sentence(fact, rng.choice(self.trained_wordings(fact))))
                if len(document) >= size:
                    yield document
                    size, document = rng.randint(2, 6), []
