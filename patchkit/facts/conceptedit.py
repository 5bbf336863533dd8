"""ConceptEdit, in the layout its experiments read: the definition of a concept is exchanged.

A record is {label, prompt, target_new_desc, phrase_prompt, locality_prompt, locality_answer,
instance_prompt}. The label is the subject and the new definition the target. The instance prompt
asks whether something belongs to the concept as it was: after the edit the answer should be "No"
(the published *instance change* counts how many fewer are answered "Yes"), read as portability.
"""

from __future__ import annotations

from collections.abc import Mapping

from patchkit.facts.fact import Fact, Probe
from patchkit.facts.fields import Fields


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has ConceptEdit's keys."""
    return {"label", "prompt", "target_new_desc"} <= record.keys()


def fact(record: object) -> Fact:
    """The fact of one record; raises `FactsError` where it has none."""
    fields = Fields(record)
    subject, prompt = fields.string("label"), fields.string("prompt")
    target = fields.string("target_new_desc")
    rephrased = fields.optional_string("phrase_prompt")
    locality, answer = (fields.optional_string(f"locality_{key}") for key in ("prompt", "answer"))
    instance = fields.optional_string("instance_prompt")
    fields.check()
    return Fact(
        subject,
        prompt,
        target,
        paraphrases=(rephrased,) if rephrased else (),
        neighbors=(Probe(locality, answer or None, group="neighborhood"),) if locality else (),
        portability=(Probe(instance, "No", group="instance"),) if instance else (),
    )
