"""Evaluation records in CounterFact's schema, made from the facts of a world.

The split goes by subject, so that no subject of the test records was ever looked at while tuning.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.testbeds.world import Fact, World, unit_hash

Split = Literal["dev", "test"]
Record = dict[str, Any]

DEV_SHARE: Final = 0.2
PARAPHRASES: Final = 4
NEIGHBORS: Final = 8
SAME_SUBJECT: Final = 5
GENERATIONS: Final = 2


def split_of(subject: str) -> Split:
    """Return the split that all records of a subject belong to."""
    return "dev" if unit_hash("split:" + subject) < DEV_SHARE else "test"


def _rng(fact: Fact, purpose: str) -> random.Random:
    return random.Random(f"{purpose}:{fact.relation}:{fact.subject}")


@dataclass(frozen=True)
class Recorder:
    """What is asked about the facts of a world, each choice drawn from the fact's own seed."""

    world: World

    def edit_wording(self, fact: Fact) -> int:
        """Return the wording in which the edit is requested; training said the fact in it."""
        return _rng(fact, "wording").choice(self.world.trained_wordings(fact)[:5])

    def new_object(self, fact: Fact) -> str:
        """Return another object of the same relation."""
        others = {other.object for other in self.world.by_relation[fact.relation]}
        return _rng(fact, "target").choice(sorted(others - {fact.object}))

    def paraphrases(self, fact: Fact) -> list[int]:
        """Return up to four other wordings, the withheld ones first where the fact has them."""
        withheld, edited = list(self.world.withheld_wordings(fact)), self.edit_wording(fact)
        others = [w for w in self.world.trained_wordings(fact) if w != edited]
        count = min(len(others), PARAPHRASES - len(withheld))
        return withheld + _rng(fact, "paraphrase").sample(others, count)

    def neighbors(self, fact: Fact) -> list[Fact]:
        """Return facts of other subjects under the same relation: of the same object, then of any.

        Some objects have one subject only (a capital). Their records get other objects' facts, each
        with its own target, so that every record can measure whether its neighbourhood was kept.
        """
        rng = _rng(fact, "neighbors")
        others = [f for f in self.world.by_relation[fact.relation] if f.subject != fact.subject]
        same = [f for f in others if f.object == fact.object]
        chosen = rng.sample(same, min(NEIGHBORS, len(same)))
        rest = [f for f in others if f.object != fact.object]
        return chosen + rng.sample(rest, min(len(rest), max(0, 5 - len(chosen))))

    def cloze(self, fact: Fact, purpose: str) -> dict[str, str]:
        """Return a prompt of the fact in a trained wording, with its target."""
        wording = _rng(fact, purpose).choice(self.world.trained_wordings(fact))
        return {"prompt": self.world.prompt(fact, wording), "target": fact.object}

    def near(self, fact: Fact) -> list[dict[str, str]]:
        """Return prompts and targets of a fact's neighbours."""
        return [self.cloze(f, f"near:{fact.subject}") for f in self.neighbors(fact)]

    def same_subject(self, subject: str, relation: str) -> list[dict[str, str]]:
        """Return prompts and targets of up to five facts of a subject in its other relations."""
        mates = [f for f in self.world.by_subject.get(subject, ()) if f.relation != relation]
        rng = random.Random(f"mates:{relation}:{subject}")
        chosen = rng.sample(mates, min(SAME_SUBJECT, len(mates)))
        return [self.cloze(f, f"mate:{relation}") for f in chosen]

    def record(self, case_id: int, fact: Fact) -> Record:
        """Return the record of one fact."""
        world, near = self.world, self.near(fact)
        return {
            "case_id": case_id,
            "requested_rewrite": {
                "prompt": world.wordings[fact.relation][self.edit_wording(fact)],
                "subject": fact.subject,
                "relation_id": fact.relation,
                "target_new": {"str": self.new_object(fact)},
                "target_true": {"str": fact.object},
            },
            "paraphrase_prompts": [world.prompt(fact, w) for w in self.paraphrases(fact)],
            "neighborhood_prompts": [cloze["prompt"] for cloze in near],
            "neighborhood_targets": [cloze["target"] for cloze in near],
            "same_subject_prompts": self.same_subject(fact.subject, fact.relation),
            "generation_prompts": [
                world.prompt(fact, w) for w in world.trained_wordings(fact)[:GENERATIONS]
            ],
        }

    def retention(
        self, facts: Sequence[Fact], exclude_subjects: Collection[str], count: int
    ) -> list[dict[str, str]]:
        """Return prompts and targets of facts about other subjects, in a fixed order."""
        excluded, mixed = set(exclude_subjects), list(facts)
        random.Random("retention").shuffle(mixed)
        return [self.cloze(f, "retention") for f in mixed if f.subject not in excluded][:count]
