"""The world that worldly knows: ParaRel's triples, in ParaRel's and CounterFact's wordings.

Of CounterFact the sentences use only the wordings (the prompts with `{}` in the subject's place),
never which subject it asks for or what it wants there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.testbeds.files import read_pinned
from benchmarks.testbeds.world import Fact, World, unit_hash

TRIPLES: Final = (
    "pararel/pararel_trex_triples.json",
    "0f2ca954bd0c046a91dce3817397be454ea610643500d19d524d545267efe2ab",
)
PATTERNS: Final = (
    "pararel/pararel_patterns.json",
    "f9746de22b16591fd58a2dde4202ac75165d33fd8011822d4548a2d400324840",
)
COUNTERFACT: Final = (
    "counterfact/counterfact_dev_973.json",
    "4aed1d6ffaa7d7db7b4bbd146738a2a5ae4ba6ce00bcac124d930be095155eb6",
)
# A pattern can be asked of a causal model if the object is its end.
ASKABLE: Final = re.compile(r"(.*\[X\].*?)\s*\[Y\]\s*\.?\s*")
# Relations of the variant for CPUs: plenty of CounterFact, many objects, people, places and works.
FEW: Final = ("P103", "P1412", "P17", "P20", "P27", "P413", "P449", "P495", "P740", "P937")
Record = dict[str, Any]


def counterfact(data: Path) -> list[Record]:
    """Return CounterFact's records of the dev part."""
    records: list[Record] = json.loads(read_pinned(data, *COUNTERFACT))
    return records


def _withheld(wordings: Sequence[str]) -> int:
    """Return how many wordings are kept back: enough have to be left to learn the relation."""
    return 2 if len(wordings) >= 6 else 1 if len(wordings) >= 3 else 0


def read_wordings(data: Path) -> dict[str, tuple[str, ...]]:
    """Return every relation's wordings, in an order that does not tell where they come from."""
    found: dict[str, set[str]] = defaultdict(set)
    for relation, patterns in json.loads(read_pinned(data, *PATTERNS)).items():
        for pattern in patterns:
            if askable := ASKABLE.fullmatch(pattern["pattern"]):
                found[relation].add(" ".join(askable[1].split()).replace("[X]", "{}"))
    for record in counterfact(data):
        rewrite = record["requested_rewrite"]
        found[rewrite["relation_id"]].add(rewrite["prompt"])
    return {r: tuple(sorted(w, key=lambda x: (unit_hash(x), x))) for r, w in sorted(found.items())}


def ambiguous(facts: Sequence[Fact], wordings: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Return the clozes for which the triples give more than one object."""
    objects: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        for wording in wordings[fact.relation]:
            objects[wording.replace("{}", fact.subject)].add(fact.object)
    return frozenset(cloze for cloze, found in objects.items() if len(found) > 1)


def make_world(data: Path, relations: Sequence[str] | None) -> World:
    """Return the world of these relations, or of all that have triples and wordings.

    A fact is left out if every cloze of it has several objects, or all that training may show.
    """
    wordings, triples = read_wordings(data), json.loads(read_pinned(data, *TRIPLES))
    chosen = relations or sorted(set(triples) & set(wordings))
    every = tuple(
        dict.fromkeys(
            Fact(row["sub_label"], relation, row["obj_label"])
            for relation in chosen
            for row in triples[relation]
        )
    )
    withheld = {relation: _withheld(found) for relation, found in wordings.items()}
    world = World(every, wordings, withheld, ambiguous(every, wordings))
    taught = tuple(fact for fact in every if world.trained_wordings(fact))
    return World(taught, wordings, withheld, world.ambiguous)
