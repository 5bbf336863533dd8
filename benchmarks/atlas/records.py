"""Evaluation records in CounterFact's schema, made from the facts by `load_records(split)`.

The split goes by subject, so that no subject of the test records was ever looked at while tuning.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.atlas import world
from benchmarks.atlas.world import Fact

Split = Literal["dev", "test"]
Record = dict[str, Any]

DEV_SHARE: Final = 0.2
PARAPHRASES: Final = 4
NEIGHBORS: Final = 8
SAME_SUBJECT: Final = 5
GENERATIONS: Final = 2


def split_of(subject: str) -> Split:
    """Return the split that all records of a subject belong to."""
    return "dev" if world.unit_hash("split:" + subject) < DEV_SHARE else "test"


@lru_cache(maxsize=1)
def _by_relation() -> dict[str, tuple[Fact, ...]]:
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in world.load_facts():
        groups[fact.relation].append(fact)
    return {relation: tuple(facts) for relation, facts in groups.items()}


def _rng(fact: Fact, purpose: str) -> random.Random:
    return random.Random(f"{purpose}:{fact.relation}:{fact.subject}")


def edit_wording(fact: Fact) -> int:
    """Return the wording in which the edit is requested; training said the fact in it."""
    return _rng(fact, "wording").choice(world.trained_wordings(fact)[:5])


def new_object(fact: Fact) -> str:
    """Return another object of the same relation."""
    objects = sorted({other.object for other in _by_relation()[fact.relation]} - {fact.object})
    return _rng(fact, "target").choice(objects)


def paraphrases(fact: Fact) -> list[int]:
    """Return four other wordings, with both withheld ones first where the fact has them."""
    withheld = list(world.withheld_wordings(fact))
    others = [w for w in world.trained_wordings(fact) if w != edit_wording(fact)]
    return withheld + _rng(fact, "paraphrase").sample(others, PARAPHRASES - len(withheld))


def neighbors(fact: Fact) -> list[Fact]:
    """Return facts of other subjects under the same relation: of the same object, then of any.

    Some objects have one subject only (a capital). Their records get other objects' facts, each
    with its own target, so that every record can measure whether its neighbourhood was kept.
    """
    rng = _rng(fact, "neighbors")
    others = [f for f in _by_relation()[fact.relation] if f.subject != fact.subject]
    same = [f for f in others if f.object == fact.object]
    chosen = rng.sample(same, min(NEIGHBORS, len(same)))
    rest = [f for f in others if f.object != fact.object]
    return chosen + rng.sample(rest, min(len(rest), max(0, 5 - len(chosen))))


def cloze(fact: Fact, purpose: str) -> dict[str, str]:
    """Return a prompt of the fact in a trained wording, with its target."""
    wording = _rng(fact, purpose).choice(world.trained_wordings(fact))
    return {"prompt": world.prompt(fact, wording), "target": fact.object}


def make_record(case_id: int, fact: Fact) -> Record:
    """Return the record of one fact."""
    near = [cloze(f, f"near:{fact.subject}") for f in neighbors(fact)]
    mates = [f for f in world.facts_by_subject()[fact.subject] if f.relation != fact.relation]
    rng = _rng(fact, "mates")
    return {
        "case_id": case_id,
        "requested_rewrite": {
            "prompt": world.template(fact.relation, edit_wording(fact)),
            "subject": fact.subject,
            "relation_id": fact.relation,
            "target_new": {"str": new_object(fact)},
            "target_true": {"str": fact.object},
        },
        "paraphrase_prompts": [world.prompt(fact, w) for w in paraphrases(fact)],
        "neighborhood_prompts": [n["prompt"] for n in near],
        "neighborhood_targets": [n["target"] for n in near],
        "same_subject_prompts": [
            cloze(f, f"mate:{fact.relation}")
            for f in rng.sample(mates, min(SAME_SUBJECT, len(mates)))
        ],
        "generation_prompts": [
            world.prompt(fact, w) for w in world.trained_wordings(fact)[:GENERATIONS]
        ],
    }


def load_records(split: Split) -> list[Record]:
    """Return the records of a split in a fixed order that mixes the relations."""
    numbered = list(enumerate(world.load_facts()))
    chosen = [(i, f) for i, f in numbered if split_of(f.subject) == split]
    random.Random(f"order:{split}").shuffle(chosen)
    return [make_record(i, f) for i, f in chosen]


def retention_facts(exclude_subjects: Collection[str], count: int = 1000) -> list[dict[str, str]]:
    """Return prompts and targets of facts about other subjects, in a fixed order."""
    excluded = set(exclude_subjects)
    facts = list(world.load_facts())
    random.Random("retention").shuffle(facts)
    return [cloze(f, "retention") for f in facts if f.subject not in excluded][:count]


def main() -> None:
    """Write both splits as JSON files into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("dev", "test"):
        records = load_records(split)
        path = folder / f"atlas_{split}_{len(records)}.json"
        path.write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", "utf-8")
        print(f"{path}: {len(records)} records")


if __name__ == "__main__":
    main()
