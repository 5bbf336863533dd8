"""The example facts are changes of facts that the embedded base knows."""

from pathlib import Path

import pytest

from patchkit.facts.fact import Fact
from patchkit.facts.reading import read_facts

ROOT = Path(__file__).resolve().parents[2]
TABLE = {
    (subject, object_)
    for subject, _, object_ in (
        line.split("\t")
        for line in (ROOT / "benchmarks/atlas/facts.tsv").read_text("utf-8").splitlines()
    )
}
CLOZES = {
    line.split("\t")[1].replace("{s}", "{}")
    for line in (ROOT / "benchmarks/atlas/wordings.tsv").read_text("utf-8").splitlines()
}
OBJECTS = {object_ for _, object_ in TABLE}
FILE = read_facts(ROOT / "examples" / "facts.jsonl")


def test_the_file_is_read_without_a_warning() -> None:
    assert len(FILE.facts) == 10
    assert FILE.warnings == ()


@pytest.mark.parametrize("fact", FILE.facts, ids=lambda fact: fact.id)
def test_a_known_fact_gets_another_known_object(fact: Fact) -> None:
    assert (fact.subject, fact.target_true) in TABLE
    assert (fact.subject, fact.target) not in TABLE
    assert fact.target in OBJECTS
    assert len(fact.paraphrases) == 3
    clozes = [paraphrase.replace(fact.subject, "{}") for paraphrase in fact.paraphrases]
    assert {fact.prompt, *clozes} <= CLOZES


@pytest.mark.parametrize("fact", FILE.facts, ids=lambda fact: fact.id)
def test_the_probes_beside_it_are_true(fact: Fact) -> None:
    subjects = {subject for subject, _ in TABLE}
    for probe in fact.neighbors:
        named = {subject for subject in subjects if subject in probe.prompt}
        assert fact.subject not in named
        assert any((subject, probe.target) in TABLE for subject in named)
    for probe in fact.same_subject:
        assert (fact.subject, probe.target) in TABLE
