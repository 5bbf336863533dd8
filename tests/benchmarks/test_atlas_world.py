"""The world of atlas is the same on every machine, and its records keep their promises."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.atlas import records
from benchmarks.atlas.records import RECORDER
from benchmarks.atlas.wordings import WITHHELD, WORDINGS
from benchmarks.atlas.world import WORLD
from benchmarks.testbeds.world import Fact, is_withheld

ROOT = Path(__file__).parents[2]


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def document_texts(count: int) -> list[list[str]]:
    prose = [f"Piece {i} of prose." for i in range(20)]
    taken = itertools.islice(WORLD.documents(3, prose), count)
    return [
        [WORLD.sentence(s.fact, s.wording) if s.fact else s.prose for s in document]
        for document in taken
    ]


def test_facts_are_distinct_and_plentiful() -> None:
    facts = WORLD.facts
    assert len({(f.subject, f.relation) for f in facts}) == len(facts) >= 6200
    assert all(f.object.lower() not in f.subject.lower() for f in facts)
    assert {f.relation for f in facts} == set(WORDINGS)


@pytest.mark.parametrize("relation", sorted(WORDINGS))
def test_wordings_name_the_subject_once_and_end_before_the_object(relation: str) -> None:
    wordings = WORDINGS[relation]
    assert len(set(wordings)) == len(wordings) >= 6
    assert all(w.count("{}") == 1 and not w.endswith(" ") for w in wordings)


def test_no_two_relations_share_a_wording() -> None:
    every = [w for wordings in WORDINGS.values() for w in wordings]
    assert len(set(every)) == len(every)


def test_about_forty_percent_of_subjects_have_withheld_wordings() -> None:
    subjects = list(WORLD.by_subject)
    assert 0.37 < sum(map(is_withheld, subjects)) / len(subjects) < 0.43


def test_training_never_says_a_withheld_wording() -> None:
    said = {
        (s.fact, s.wording)
        for document in itertools.islice(WORLD.documents(0, []), 6000)
        for s in document
        if s.fact is not None
    }
    assert all(wording in WORLD.trained_wordings(fact) for fact, wording in said)
    fact = next(f for f in WORLD.facts if is_withheld(f.subject))
    assert len(WORLD.withheld_wordings(fact)) == WITHHELD


def test_one_pass_says_every_fact_once() -> None:
    facts = list(WORLD.facts)
    said: list[Fact] = []
    for document in WORLD.documents(1, []):
        said += [s.fact for s in document if s.fact is not None]
        if len(said) >= len(facts):
            break
    assert set(said[: len(facts)]) == set(facts)


def test_documents_and_records_do_not_depend_on_the_process() -> None:
    here = digest([document_texts(200), records.load_records("dev")[:50]])
    code = (
        "from tests.benchmarks.test_atlas_world import *;"
        "print(digest([document_texts(200), records.load_records('dev')[:50]]))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert here == there


def test_records_follow_the_schema_and_split_by_subject() -> None:
    dev, test = records.load_records("dev"), records.load_records("test")
    assert len(dev) + len(test) >= 6000
    subjects = [{r["requested_rewrite"]["subject"] for r in split} for split in (dev, test)]
    assert not subjects[0] & subjects[1]
    for record in dev + test:
        rewrite = record["requested_rewrite"]
        assert rewrite["target_new"]["str"] != rewrite["target_true"]["str"]
        assert rewrite["prompt"].count("{}") == 1
        asked = rewrite["prompt"].format(rewrite["subject"])
        assert len(set(record["paraphrase_prompts"]) - {asked}) == 4
        assert 5 <= len(record["neighborhood_prompts"]) == len(record["neighborhood_targets"]) <= 10


def test_withheld_wordings_are_among_the_paraphrases() -> None:
    fact = next(f for f in WORLD.facts if is_withheld(f.subject))
    assert set(WORLD.withheld_wordings(fact)) <= set(RECORDER.paraphrases(fact))


def test_retention_leaves_out_the_edited_subjects() -> None:
    assert len(records.retention_facts([])) == 1000
    every, rest = records.retention_facts([], 10**6), records.retention_facts(["France"], 10**6)
    assert len(every) - len(rest) == len(WORLD.by_subject["France"])
    assert [row for row in every if row in rest] == rest
