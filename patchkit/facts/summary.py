"""What a file of facts holds, in figures, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from patchkit.facts.collection import FactsFile
from patchkit.facts.fact import Fact, Problem


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one file.

    `templates` counts different prompts with `{}` in them, the nearest thing to relations.
    `shared_subjects` are those with several facts, with their number, most first. `skipped` counts
    records that are no facts. Probes are counted one by one; `longest_target` is in characters.
    """

    format: str
    facts: int
    subjects: int
    shared_subjects: tuple[tuple[str, int], ...]
    templates: int
    duplicates: int
    contradictions: int
    skipped: int
    with_target_true: int
    with_paraphrases: int
    paraphrases: int
    neighbors: int
    same_subject: int
    portability: int
    multihop: int
    longest_target: str
    warnings: tuple[Problem, ...]


def summary(file: FactsFile) -> Summary:
    """Count what `file` holds."""
    facts = file.facts
    subjects = Counter(fact.subject for fact in facts)
    kinds = Counter(problem.kind for problem in file.warnings)
    invalid = (problem for problem in file.warnings if problem.kind == "invalid")
    return Summary(
        format=file.format,
        facts=len(facts),
        subjects=len(subjects),
        shared_subjects=tuple(pair for pair in subjects.most_common() if pair[1] > 1),
        templates=len({fact.prompt for fact in facts}),
        duplicates=kinds["duplicate"],
        contradictions=kinds["contradiction"],
        skipped=len({(problem.line, problem.record) for problem in invalid}),
        with_target_true=sum(fact.target_true is not None for fact in facts),
        with_paraphrases=sum(bool(fact.paraphrases) for fact in facts),
        paraphrases=sum(len(fact.paraphrases) for fact in facts),
        neighbors=sum(len(fact.neighbors) for fact in facts),
        same_subject=sum(len(fact.same_subject) for fact in facts),
        portability=sum(len(fact.portability) for fact in facts),
        multihop=sum(len(fact.multihop) for fact in facts),
        longest_target=_longest(facts),
        warnings=file.warnings,
    )


def _longest(facts: Sequence[Fact]) -> str:
    return max((fact.target for fact in facts), key=len, default="")
