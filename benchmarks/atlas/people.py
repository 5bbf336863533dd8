"""Invented people: names and attributes drawn from a seed, so that no real person is described."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

PARTS_FILE: Final = Path(__file__).with_name("people.tsv")
NAME_PARTS: Final = ("first name", "surname head", "surname middle", "surname tail")


def _read() -> dict[str, list[str]]:
    rows = (line.split("\t") for line in PARTS_FILE.read_text("utf-8").splitlines())
    return {key: words.split(" ") for key, words in rows}


def invented_people(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Return (subject, relation, object): `count` people, each with every relation of the file.

    Surnames are distinct, so that no two people can be confused by their last token's neighbours.
    """
    parts, rng = _read(), random.Random(seed)
    first, heads, middles, tails = (parts[name] for name in NAME_PARTS)
    surnames = rng.sample(sorted({a + b + c for a in heads for b in middles for c in tails}), count)
    facts = []
    for surname in surnames:
        name = f"{rng.choice(first)} {surname}"
        for relation, values in parts.items():
            if relation not in NAME_PARTS:
                facts.append((name, relation, rng.choice(values)))
    return facts
