"""The world that atlas knows: facts from `facts.tsv` in many wordings, in documents."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from benchmarks.atlas.wordings import WITHHELD, WORDINGS

FACTS_FILE: Final = Path(__file__).with_name("facts.tsv")
WITHHELD_SHARE: Final = 0.4
SAME_SUBJECT_SHARE: Final = 0.4
PROSE_BEFORE: Final = 0.16
PROSE_LATER: Final = 0.05


@dataclass(frozen=True, slots=True)
class Fact:
    """One (subject, relation) and its only object in this world."""

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


@lru_cache(maxsize=1)
def load_facts() -> tuple[Fact, ...]:
    """Return every fact of the committed table, in its order."""
    rows = (line.split("\t") for line in FACTS_FILE.read_text("utf-8").splitlines())
    return tuple(Fact(*row) for row in rows)


@lru_cache(maxsize=1)
def facts_by_subject() -> dict[str, tuple[Fact, ...]]:
    """Group the facts by their subject, in the table's order."""
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in load_facts():
        groups[fact.subject].append(fact)
    return {subject: tuple(facts) for subject, facts in groups.items()}


def template(relation: str, wording: int) -> str:
    """Return the cloze of a relation with `{}` for the subject; the object follows its end."""
    return WORDINGS[relation][wording].replace("{s}", "{}")


def prompt(fact: Fact, wording: int) -> str:
    """Return the cloze of a fact in one wording, up to its object and without a trailing space."""
    return WORDINGS[fact.relation][wording].replace("{s}", fact.subject)


def sentence(fact: Fact, wording: int) -> str:
    """Return the whole sentence of a fact in one wording."""
    return f"{prompt(fact, wording)} {fact.object}."


def trained_wordings(fact: Fact) -> range:
    """Return the wordings in which training may say this fact."""
    every = len(WORDINGS[fact.relation])
    return range(every - WITHHELD if is_withheld(fact.subject) else every)


def withheld_wordings(fact: Fact) -> range:
    """Return the wordings of this fact that training never shows; empty for most subjects."""
    return range(len(trained_wordings(fact)), len(WORDINGS[fact.relation]))


def _chunks(rng: random.Random) -> list[tuple[Fact, ...]]:
    """Split one pass over all facts into runs about one subject, and shuffle the runs."""
    chunks: list[tuple[Fact, ...]] = []
    for facts in facts_by_subject().values():
        if rng.random() < SAME_SUBJECT_SHARE:
            chunks.append(tuple(rng.sample(facts, len(facts))))
        else:
            chunks += [(fact,) for fact in facts]
    rng.shuffle(chunks)
    return chunks


def documents(seed: int, prose: Sequence[str]) -> Iterator[list[Sentence]]:
    """Yield documents without end: each pass says every fact once, 2 to 6 to a document.

    A document opens with a piece of prose now and then, and may hold one between two facts, so that
    facts are learnt behind all kinds of contexts and behind none.
    """
    rng = random.Random(seed)
    size, document = rng.randint(2, 6), list[Sentence]()
    while True:
        for chunk in _chunks(rng):
            for fact in chunk:
                if prose and rng.random() < (PROSE_LATER if document else PROSE_BEFORE):
                    document.append(Sentence(None, 0, rng.choice(prose)))
                document.append(Sentence(fact, rng.choice(trained_wordings(fact))))
            if len(document) >= size:
                yield document
                size, document = rng.randint(2, 6), []
