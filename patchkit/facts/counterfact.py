"""CounterFact: the full schema of its authors and the flat one that EasyEdit ships.

Full: `requested_rewrite` {prompt with `{}`, subject, target_new {str}, target_true {str}},
`paraphrase_prompts`, `neighborhood_prompts` (other subjects whose right answer is target_true),
`generation_prompts`. Relation and target id together name the snippets that generated text is
compared with. Attribute prompts are not read. Two extensions: `neighborhood_targets`, an answer
for each neighbourhood prompt, and `same_subject_prompts`, a list of {prompt, target}.

Flat: `prompt, target_new, ground_truth, subject, rephrase_prompt, locality_prompt,
locality_ground_truth`; its rephrase_prompt is mostly a generation prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields
from patchkit.facts.snippets import reference


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has CounterFact's keys."""
    return "requested_rewrite" in record or {"target_new", "locality_prompt"} <= record.keys()


def fact(record: object) -> Fact:
    """The fact of one record; raises `FactsError` where it has none."""
    fields = Fields(record)
    return _full(fields) if fields.value("requested_rewrite") is not None else _flat(fields)


def _full(fields: Fields) -> Fact:
    rewrite = fields.inside("requested_rewrite")
    subject, prompt = rewrite.string("subject"), rewrite.string("prompt")
    target = rewrite.inside("target_new").string("str")
    true = rewrite.inside("target_true").string("str")
    paraphrases = fields.strings("paraphrase_prompts")
    neighbors = fields.strings("neighborhood_prompts")
    answers = fields.strings("neighborhood_targets") or (true,) * len(neighbors)
    same_subject = fields.probes("same_subject_prompts")
    generation = fields.strings("generation_prompts")
    relation = rewrite.optional_string("relation_id")
    target_id = rewrite.inside("target_new").optional_string("id")
    identifier = fields.identifier("case_id")
    fields.check()
    if len(answers) != len(neighbors):
        message = f'"neighborhood_targets" has {len(answers)} answers for {len(neighbors)} prompts'
        raise invalid(Problem(None, "neighborhood_targets", message))
    probes = tuple(map(Probe, neighbors, answers))
    return Fact(
        subject,
        prompt,
        target,
        true,
        paraphrases,
        probes,
        same_subject,
        identifier,
        generation=generation,
        reference=reference(relation, target_id) if relation and target_id else None,
    )


def _flat(fields: Fields) -> Fact:
    subject, prompt = fields.string("subject"), fields.string("prompt")
    target, true = fields.string("target_new"), fields.optional_string("ground_truth")
    rephrased = fields.optional_string("rephrase_prompt")
    locality = fields.optional_string("locality_prompt")
    answer = fields.optional_string("locality_ground_truth")
    identifier = fields.identifier("case_id")
    fields.check()
    paraphrases = (rephrased,) if rephrased else ()
    neighbors = (Probe(locality, answer or None),) if locality else ()
    return Fact(subject, prompt, target, true or None, paraphrases, neighbors, id=identifier)
