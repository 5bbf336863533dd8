"""RippleEdits: one edit and six groups of tests of what it does to other facts.

A record is {edit {prompt, subject_id, relation, target_id, previous_fact? {prompt, …}}} and for
each group a list of {test_queries: [{prompt, answers: [{value, aliases}], query_type, subject_id,
relation, target_ids, phrase}], test_condition, condition_queries}. The edit's prompt is a whole
sentence, and its subject is given by id only. The subject's text is found in the file itself: all
prompts of one relation share the words around the subject.

Relation_Specificity and Forgetfulness ask for what must stay (`same_subject`), the other groups
for consequences (`portability`). Of several answers the first is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields

KEPT = ("Relation_Specificity", "Relation_Specifity", "Forgetfulness")
CHANGED = (
    "Logical_Generalization",
    "Compositionality_I",
    "Compositionality_II",
    "Subject_Aliasing",
)
Frame = tuple[str, str]


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has RippleEdits' keys."""
    edit = record.get("edit")
    return isinstance(edit, Mapping) and {"prompt", "subject_id", "relation"} <= edit.keys()


def reader(records: Sequence[object]) -> Callable[[object], Fact]:
    """How to read one record of this file; the relations' words are learnt from all of them."""
    frames = _frames(records)
    labels = {
        subject: _inside(prompt, frames[relation])
        for subject, relation, prompt in _simple(records)
        if relation in frames
    }

    def fact(record: object) -> Fact:
        fields = Fields(record)
        edit = fields.inside("edit")
        sentence, relation = edit.string("prompt"), edit.string("relation")
        subject = labels.get(edit.string("subject_id"))
        before = edit.optional_inside("previous_fact").optional_string("prompt")
        kept, changed = (tuple(_probes(fields, groups)) for groups in (KEPT, CHANGED))
        fields.check()
        if not subject or relation not in frames:
            message = f"the file does not show the subject of {sentence!r}"
            raise invalid(Problem(None, "edit", message))
        stem = subject.join(frames[relation])
        target, true = _after(stem, sentence), _after(stem, before or "")
        if target is None:
            message = f"{sentence!r} does not begin with {stem!r}"
            raise invalid(Problem(None, "edit.prompt", message))
        prompt = "{}".join(frames[relation])
        return Fact(subject, prompt, target, true, same_subject=kept, portability=changed)

    return fact


def _frames(records: Sequence[object]) -> dict[str, Frame]:
    """What stands before and after the subject in the prompts of each relation."""
    prompts: dict[str, dict[str, str]] = {}
    for subject, relation, prompt in _simple(records):
        prompts.setdefault(relation, {}).setdefault(subject, prompt)
    return {
        relation: _frame(list(found.values()))
        for relation, found in prompts.items()
        if len(found) > 1
    }


def _frame(prompts: list[str]) -> Frame:
    """The words with which all prompts begin and those with which all end."""
    words = [prompt.split(" ") for prompt in prompts]
    before = _common(words)
    after = _common([line[len(before) :][::-1] for line in words])[::-1]
    return "".join(f"{word} " for word in before), "".join(f" {word}" for word in after)


def _common(lines: list[list[str]]) -> list[str]:
    """The words that all lines begin with."""
    columns = zip(*lines, strict=False)
    return [words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns)]


def _simple(records: Sequence[object]) -> Iterator[tuple[str, str, str]]:
    """Subject id, relation and prompt of every query about one relation of one subject."""
    for record in records:
        queries = _queries(record) if isinstance(record, Mapping) else ()
        for query in queries:
            values = [query.get(key) for key in ("subject_id", "relation", "prompt")]
            plain = query.get("query_type") == "regular" and query.get("phrase") is None
            if plain and all(isinstance(value, str) and value for value in values):
                subject, relation, prompt = map(str, values)
                yield subject, relation, prompt


def _queries(record: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for group in (*KEPT, *CHANGED):
        tests = record.get(group)
        for test in tests if isinstance(tests, list) else ():
            for kind in ("test_queries", "condition_queries"):
                found = test.get(kind) if isinstance(test, Mapping) else None
                for query in found if isinstance(found, list) else ():
                    if isinstance(query, Mapping):
                        yield query


def _inside(prompt: str, frame: Frame) -> str:
    before, after = frame
    return prompt[len(before) : len(prompt) - len(after)]


def _after(stem: str, sentence: str) -> str | None:
    """What a sentence says after its stem, without the full stop; None for another sentence."""
    said = sentence.removeprefix(stem)
    return said.strip().removesuffix(".").strip() or None if said != sentence else None


def _probes(fields: Fields, groups: Sequence[str]) -> Iterator[Probe]:
    for group in groups:
        for test in fields.objects(group):
            for query in test.objects("test_queries"):
                answers = list(query.objects("answers"))
                prompt = query.optional_string("prompt") or query.optional_string("phrase")
                value = answers[0].string("value") if answers else ""
                if prompt and value.strip():
                    aliases = tuple(filter(str.strip, answers[0].strings("aliases")))
                    yield Probe(prompt, value, aliases, group)
