"""zsRE as MEND published it: subject, src, pred, rephrase, alt, answers, loc, loc_ans.

Two readings are in use, and their figures cannot be compared. `alt`: the target is the alternative
answer `alt`, the truth is `answers[0]`, the neighbour prompt is `loc` as it stands (EasyEdit).
`answers`: the target is the right answer `answers[0]`, the neighbour prompt is `loc` and "?"
(AlphaEdit and its ancestors).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields

Target = Literal["alt", "answers"]


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has zsRE's keys."""
    return {"subject", "src", "answers"} <= record.keys()


def fact(record: object, *, target: Target = "alt") -> Fact:
    """The fact of one record in the reading named by `target`; raises `FactsError` without one."""
    fields = Fields(record)
    subject, prompt = fields.string("subject"), fields.string("src")
    right = next(filter(None, fields.strings("answers")), None)
    alternative = fields.optional_string("alt")
    wanted = alternative if target == "alt" else right
    true = right if target == "alt" else None
    rephrased = fields.optional_string("rephrase")
    locality = fields.optional_string("loc")
    answer = fields.optional_string("loc_ans")
    fields.check()
    if not wanted or not wanted.strip():
        raise invalid(Problem(None, target, f'"{target}" is empty'))
    ending = "?" if target == "answers" else ""
    neighbors = (Probe(locality + ending, answer or None),) if locality else ()
    return Fact(subject, prompt, wanted, true, (rephrased,) if rephrased else (), neighbors)
