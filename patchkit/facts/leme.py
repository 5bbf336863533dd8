"""LEME, long-form evaluation: CounterFact's and zsRE's records with coupled entities.

A record has the keys of the data set it extends and `coupled_prompts_and_properties`
{subject_entity {coupled_prompt, …}, coupled_entities: [{entity, coupled_prompt, …}, …]}. Two texts
are asked for: an essay about the subject and one about the first coupled entity, each told to say
how the two are related. Its judgements are made by language models and people, so what is measured
here is how the essays are written (fluency), besides the figures of the data set it extends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from patchkit.facts import counterfact, zsre
from patchkit.facts.fact import Fact
from patchkit.facts.fields import Fields

_KEY = "coupled_prompts_and_properties"


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has LEME's keys."""
    return _KEY in record


def fact(record: object) -> Fact:
    """The fact of one record, zsRE's with the target `alt`; raises `FactsError` without one."""
    fields = Fields(record)
    is_zsre = isinstance(record, Mapping) and zsre.matches(record)
    found = zsre.easyedit(record) if is_zsre else counterfact.fact(record)
    coupled = fields.inside(_KEY)
    essay = coupled.inside("subject_entity").string("coupled_prompt")
    others = [
        (other.string("entity"), other.string("coupled_prompt"))
        for other in coupled.objects("coupled_entities")
    ]
    fields.check()
    if not others:
        return replace(found, generation=(f"{essay}\n\n{found.subject}",))
    entity, other_essay = others[0]
    generation = (
        f"{essay}\n-relationship to {entity}\n\n{found.subject}",
        f"{other_essay}\n-relationship to {found.subject}\n\n{entity}",
    )
    return replace(found, generation=generation)
