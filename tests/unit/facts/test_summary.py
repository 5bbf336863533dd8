"""The figures of a facts file."""

import json

from patchkit.facts.fact import Fact
from patchkit.facts.reading import parse_facts, parse_jsonl, to_jsonl
from patchkit.facts.summary import summary
from tests.unit.facts.samples import MQUAKE, MQUAKE_SHARED
from tests.unit.facts.test_reading import FLAT, KNOWEDIT


def test_summary_of_a_facts_file() -> None:
    facts = [
        Fact("France", "The capital of {} is", "Lyon", "Paris", ("France's capital is",)),
        Fact("France", "In {} people speak", "Old Norse"),
        Fact("Spain", "The capital of {} is", "Vigo"),
        Fact("Spain", "The capital of {} is", "Cádiz"),
        Fact("Italy", "The capital of {} is", "Bari"),
        Fact("Italy", "The capital of {} is", "Bari"),
    ]
    found = summary(parse_jsonl(to_jsonl(facts)))
    assert (found.format, found.facts, found.subjects, found.templates) == ("jsonl", 4, 3, 2)
    assert found.shared_subjects == (("France", 2),)
    assert (found.duplicates, found.contradictions, found.skipped) == (1, 1, 0)
    assert (found.with_target_true, found.with_paraphrases, found.paraphrases) == (1, 1, 1)
    assert (found.neighbors, found.same_subject) == (0, 0)
    assert found.longest_target == "Old Norse"
    assert len(found.warnings) == 2


def test_summary_counts_consequences() -> None:
    found = summary(parse_facts(json.dumps([KNOWEDIT]).encode()))
    assert (found.neighbors, found.same_subject, found.portability) == (1, 1, 1)
    cases = summary(parse_facts(json.dumps([MQUAKE, MQUAKE_SHARED]).encode()))
    assert (cases.facts, cases.duplicates, cases.multihop) == (2, 1, 2)


def test_summary_counts_skipped_records_once() -> None:
    broken = {**FLAT, "subject": "", "prompt": ""}
    found = summary(parse_facts(json.dumps([FLAT, broken]).encode()))
    assert (found.format, found.facts, found.skipped) == ("counterfact", 1, 1)
    assert len(found.warnings) == 2
    assert found.neighbors == 1
