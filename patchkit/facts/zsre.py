"""zsRE as MEND published it: subject, src, pred, rephrase, alt, answers, loc, loc_ans.

Two readings are in use, and their figures cannot be compared. EasyEdit's: the target is the
alternative answer `alt`, the truth is `answers[0]`, the neighbour prompt is `loc` as it stands.
AlphaEdit's and its ancestors': the target is the right answer `answers[0]`, the neighbour prompt is
`loc` and "?".
"""

from __future__ import annotations

from collections.abc import Mapping

from patchkit.facts.fact import Fact, Probe, Problem, invalid
from patchkit.facts.fields import Fields


def matches(record: Mapping[str, object]) -> bool:
    """Whether a record has zsRE's keys."""
    return {"subject", "src", "answers"} <= record.keys()


def easyedit(record: object) -> Fact:
    """The fact of one record with the target `alt`; raises `FactsError` without one."""
    fields = Fields(record)
    alternative, right = fields.optional_string("alt"), _right(fields)
    return _fact(fields, "alt", alternative, right, ending="")


def alphaedit(record: object) -> Fact:
    """The fact of one record with the target `answers[0]`; raises `FactsError` without one."""
    fields = Fields(record)
    return _fact(fields, "answers", _right(fields), None, ending="?")


def _right(fields: Fields) -> str | None:
    return next(filter(None, fields.strings("answers")), None)


def _fact(fields: Fields, key: str, target: str | None, true: str | None, *, ending: str) -> Fact:
    subject, prompt = fields.string("subject"), fields.string("src")
    rephrased = fields.optional_string("rephrase")
    locality = fields.optional_string("loc")
    answer = fields.optional_string("loc_ans")
    fields.check()
    if not target or not target.strip():
        raise invalid(Problem(None, key, f'"{key}" is empty'))
    neighbors = (Probe(locality + ending, answer or None),) if locality else ()
    return Fact(subject, prompt, target, true, (rephrased,) if rephrased else (), neighbors)
