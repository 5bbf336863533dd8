"""KnowEdit: wiki_recent, wiki_counterfact, ZsRE and WikiBio.

The first three are {subject, prompt, target_new, ground_truth?, rephrase_prompt?,
portability {group: [{prompt, ground_truth}]}, locality {…}}. WikiBio is {text, labels, concept,
locality}: the concept is the subject, the text the prompt, and the sentence `labels` the target.

Answers are strings or nested lists: the first is the answer, the others of the innermost list are
its aliases. Locality questions that name the subject become `same_subject`, the others `neighbors`.
Questions without an answer are left out. Every question keeps its group's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has KnowEdit's keys."""
    return is_wikibio(record) or (
        "target_new" in record and ("portability" in record or "locality" in record)
    )


def is_wikibio(record: Mapping[str, object]) -> bool:
    """Whether a record is of KnowEdit's WikiBio."""
    return {"text", "labels", "concept"} <= record.keys()


def fact(record: object) -> Fact:
    """The fact of one record; raises `FactsError` where it has none."""
    wikibio = isinstance(record, Mapping) and is_wikibio(record)
    names = ("concept", "text", "labels") if wikibio else ("subject", "prompt", "target_new")
    fields = Fields(record)
    subject, prompt = fields.string(names[0]), fields.string(names[1])
    targets = answers(fields.value(names[2]))
    true = answers(fields.value("ground_truth"))
    rephrased = fields.optional_string("rephrase_prompt")
    portability, locality = (tuple(_questions(fields, key)) for key in ("portability", "locality"))
    fields.check()
    if not targets:
        raise invalid(Problem(None, names[2], f'"{names[2]}" has no answer'))
    return Fact(
        subject,
        prompt,
        targets[0],
        true[0] if true else None,
        (rephrased,) if rephrased else (),
        neighbors=tuple(probe for probe in locality if subject not in probe.prompt),
        same_subject=tuple(probe for probe in locality if subject in probe.prompt),
        portability=portability,
    )


def _questions(fields: Fields, key: str) -> Iterator[Probe]:
    groups = fields.optional_inside(key)
    for group in groups.keys:
        for question in groups.objects(group):
            prompt, found = question.string("prompt"), answers(question.value("ground_truth"))
            if prompt and found:
                yield Probe(prompt, found[0], found[1:], group)


def answers(value: object) -> tuple[str, ...]:
    """The first innermost list of strings that is not blank, as an answer and its aliases."""
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if not isinstance(value, list):
        return ()
    texts = [text for item in value if isinstance(item, str) for text in answers(item)]
    if texts:
        return tuple(texts)
    return next(filter(None, map(answers, value)), ())
