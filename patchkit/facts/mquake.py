"""MQuAKE, counterfactual (CF, CF-3k) and temporal (T): one layout.

A case is {requested_rewrite: [{prompt with `{}`, subject, target_new {str}, target_true {str},
question}], questions, new_answer, new_answer_alias, …}. Each rewrite is a fact, its question a
paraphrase. The case's multi-hop questions stand with its last fact and need the others. Cases share
facts: equal ones are edited once and collect the questions of all their cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from patchkit.facts.fact import Fact, MultiHop, Problem, invalid
from patchkit.facts.fields import Fields


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has MQuAKE's keys."""
    return isinstance(record.get("requested_rewrite"), list)


def facts(record: object) -> tuple[Fact, ...]:
    """The facts of one case; raises `FactsError` where one of them cannot be used."""
    fields = Fields(record)
    rewrites = list(fields.objects("requested_rewrite"))
    questions, answer = fields.strings("questions"), fields.string("new_answer")
    aliases = tuple(filter(str.strip, fields.strings("new_answer_alias")))
    fields.check()
    if not rewrites:
        raise invalid(Problem(None, "requested_rewrite", '"requested_rewrite" is empty'))
    *others, last = map(_fact, rewrites)
    if questions:
        needs = tuple(sorted({fact.id for fact in others}))
        last = replace(last, multihop=(MultiHop(questions, answer, aliases, needs),))
    return (*others, last)


def _fact(rewrite: Fields) -> Fact:
    subject, prompt = rewrite.string("subject"), rewrite.string("prompt")
    target = rewrite.inside("target_new").string("str")
    true = rewrite.inside("target_true").string("str")
    question = rewrite.optional_string("question")
    rewrite.check()
    return Fact(subject, prompt, target, true, (question,) if question else ())
