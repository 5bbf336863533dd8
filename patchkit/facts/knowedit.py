"""KnowEdit's wiki_counterfact and wiki_recent.

A record is {subject, prompt, target_new, ground_truth?, portability {…}, locality {…}}. Answers
are strings or nested lists of aliases: the first alias is taken. Locality questions that name the
subject become `same_subject`, the others `neighbors`; those without an answer are left out, and so
is portability, which asks for consequences of the fact and not for what must stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has KnowEdit's keys."""
    return "target_new" in record and ("portability" in record or "locality" in record)


def is_wikibio(record: Mapping[str, object]) -> bool:
    """Whether a record is of KnowEdit's WikiBio, which has no facts of this kind."""
    return {"text", "labels", "concept"} <= record.keys()


def fact(record: object) -> Fact:
    """The fact of one record; raises `FactsError` where it has none."""
    fields = Fields(record)
    subject, prompt = fields.string("subject"), fields.string("prompt")
    target = first_answer(fields.value("target_new"))
    true = first_answer(fields.value("ground_truth"))
    probes = tuple(_locality(fields))
    fields.check()
    if target is None:
        raise invalid(Problem(None, "target_new", '"target_new" has no answer'))
    about = tuple(probe for probe in probes if subject in probe.prompt)
    others = tuple(probe for probe in probes if subject not in probe.prompt)
    return Fact(subject, prompt, target, true, neighbors=others, same_subject=about)


def _locality(fields: Fields) -> Iterator[Probe]:
    locality = fields.optional_inside("locality")
    for group in locality.keys:
        for item in locality.items(group):
            question = Fields(item, f"locality.{group}.", fields.problems)
            prompt, answer = question.string("prompt"), first_answer(question.value("ground_truth"))
            if prompt and answer:
                yield Probe(prompt, answer)


def first_answer(value: object) -> str | None:
    """The first string that is not blank in a string or nested lists of strings."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        return next(filter(None, map(first_answer, value)), None)
    return None
