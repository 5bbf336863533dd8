"""Data sets whose questions go beyond the fact, from KnowEdit to RippleEdits."""

import json
from pathlib import Path
from typing import Any

import pytest

from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, MultiHop, Probe
from patchkit.facts.reading import FactsFile, parse_facts, parse_jsonl, read_facts, to_jsonl
from tests.unit.facts import samples
from tests.unit.facts.test_reading import FLAT, FULL, ZSRE


def read(*records: Any) -> FactsFile:
    file = parse_facts(json.dumps(records, ensure_ascii=False).encode())
    assert parse_jsonl(to_jsonl(file.facts)).facts == file.facts
    return file


def test_wikibio_continues_a_passage_about_its_concept() -> None:
    assert read(samples.WIKIBIO).facts == (
        Fact(
            "ada byte",
            "This is a Wikipedia passage about {}. Ada Byte (born 1999) is a painter.",
            "She paints bridges.",
            same_subject=(Probe("The city of ada byte is", "Ghent", (), "Relation_Specificity"),),
        ),
    )


def test_knowedits_zsre_has_a_paraphrase_and_named_groups() -> None:
    assert read(samples.KNOWEDIT_ZSRE).facts == (
        Fact(
            "Mount Zed",
            "Where does {} lie?",
            "Peru",
            "Chile",
            ("In which country is Mount Zed?",),
            same_subject=(Probe("Mount Zed is as high as", "4 km", (), "Relation_Specificity"),),
            portability=(Probe("The tongue there is", "Spanish", (), "Reasoning"),),
        ),
    )


def test_conceptedit_exchanges_a_definition() -> None:
    assert read(samples.CONCEPT).facts == (
        Fact(
            "lighthouse",
            "{} is defined as",
            "a shop that sells lamps",
            paraphrases=("Define lighthouse:",),
            neighbors=(Probe("violin is defined as", "a bowed instrument", (), "neighborhood"),),
            portability=(
                Probe("Whether Eddystone belongs to category lighthouse?", "No", (), "instance"),
            ),
        ),
    )


def test_a_case_of_mquake_asks_with_its_last_fact_and_needs_the_others() -> None:
    first, last = read(samples.MQUAKE).facts
    assert first == Fact(
        "Blockfall", "{} was created by", "Nia Okoro", "Jan Kos", ("Who made Blockfall?",)
    )
    assert last.target_true == "Lagos"
    assert last.multihop == (
        MultiHop(
            tuple(samples.MQUAKE["questions"]),  # type: ignore[arg-type]
            "Quito",
            ("San Francisco de Quito",),
            (first.id,),
        ),
    )


def test_cases_of_mquake_share_facts_and_keep_all_questions() -> None:
    file = read(samples.MQUAKE, samples.MQUAKE_SHARED)
    assert [fact.subject for fact in file.facts] == ["Blockfall", "Nia Okoro"]
    assert [case.target for case in file.facts[1].multihop] == ["Quito", "Ecuador"]
    assert file.places == (0, 0)
    assert [problem.kind for problem in file.warnings] == ["duplicate"]


def test_leme_asks_for_two_essays_beside_its_own_record() -> None:
    (found,) = read(samples.leme(FULL)).facts
    (plain,) = read(FULL).facts
    assert (found.subject, found.target, found.neighbors) == (
        plain.subject,
        plain.target,
        plain.neighbors,
    )
    essay = "Write an essay about {}\nInclude the following information:\n- occupation"
    assert found.generation == (
        essay.format("the subject") + "\n-relationship to Ada Byte\n\nDanielle Darrieux",
        essay.format("Ada Byte") + "\n-relationship to Danielle Darrieux\n\nAda Byte",
    )
    assert read(samples.leme(ZSRE)).facts[0].target == "unmanned aircraft"
    alone = samples.leme(FULL)
    alone["coupled_prompts_and_properties"]["coupled_entities"] = []
    assert len(read(alone).facts[0].generation) == 1


def test_rippleedits_finds_subjects_in_the_words_around_them() -> None:
    ann, bo, cy = samples.ripples()
    file = read(ann, bo, cy)
    (fact, second) = file.facts
    assert fact == Fact(
        "Ann Of Ghent",
        "The eye color of {} is",
        "green",
        "blue",
        same_subject=(
            Probe(
                "The mother of Ann Of Ghent is", "Kim", ("Kim the First",), "Relation_Specificity"
            ),
        ),
        portability=(
            Probe("The paint of it is", "oil", ("oil the First",), "Compositionality_I"),
            Probe(
                "The eye color of old Ann Of Ghent is",
                "green",
                ("green the First",),
                "Subject_Aliasing",
            ),
        ),
    )
    assert (second.subject, second.target_true) == ("Bo", None)
    assert [probe.group for probe in second.same_subject] == [
        "Relation_Specificity",
        "Forgetfulness",
    ]
    (problem,) = file.warnings
    assert (problem.record, str(problem)) == (
        2,
        "the file does not show the subject of 'The eye color of Cy is green.'",
    )


def test_rippleedits_refuses_an_edit_that_says_something_else() -> None:
    ann, bo, cy = samples.ripples()
    bo["edit"]["prompt"] = "Bo has eyes that are green."
    problem = read(ann, bo, cy).warnings[0]
    assert (problem.record, problem.message) == (
        1,
        "'Bo has eyes that are green.' does not begin with 'The eye color of Bo is'",
    )


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({**samples.MQUAKE, "requested_rewrite": []}, "requested_rewrite"),
        ({**samples.MQUAKE, "new_answer": 5}, "new_answer"),
        ({**samples.MQUAKE, "requested_rewrite": [{**samples.GAME, "subject": 5}]}, "subject"),
        ({**samples.CONCEPT, "label": None}, "label"),
        ({**samples.WIKIBIO, "labels": " "}, "labels"),
        ({**samples.leme(FULL), "coupled_prompts_and_properties": 5}, "coupled_prompts_and"),
        ({**FLAT, "coupled_prompts_and_properties": {}}, "subject_entity"),
        ({**samples.ripple("Q1", "Bo", "MOTHER"), "Subject_Aliasing": [5]}, "Subject_Aliasing[1]"),
    ],
)
def test_a_bad_record_names_its_key(record: object, key: str) -> None:
    with pytest.raises(FactsError) as caught:
        read(record)
    assert key in caught.value.problems[0].message


def test_published_mquake_keeps_every_case(data_dir: Path) -> None:
    path = data_dir / "mquake" / "mquake_cf_354.json"
    if not path.is_file():
        pytest.skip("no MQuAKE in the data folder")
    file = read_facts(path)
    records = json.loads(path.read_bytes())
    cases = [case for fact in file.facts for case in fact.multihop]
    assert len(cases) == len(records) == 354
    assert {prompt for case in cases for prompt in case.prompts} == {
        question for record in records for question in record["questions"]
    }
    ids = {fact.id for fact in file.facts}
    assert all(set(case.needs) <= ids for case in cases)
    assert {problem.kind for problem in file.warnings} == {"duplicate"}


@pytest.mark.parametrize("name", ["wiki_counterfact_train_1428", "wiki_recent_train_570"])
def test_published_knowedit_names_its_groups(data_dir: Path, name: str) -> None:
    path = data_dir / "knowedit" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no {name} in the data folder")
    facts = read_facts(path).facts
    assert {probe.group for fact in facts for probe in fact.portability} == {
        "Reasoning",
        "Subject_Aliasing",
        "Logical_Generalization",
    }
    kept = {probe.group for fact in facts for probe in (*fact.neighbors, *fact.same_subject)}
    assert kept == {"Relation_Specificity", "Forgetfulness"}
