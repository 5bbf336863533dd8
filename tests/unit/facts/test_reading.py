"""Published data sets, told apart by content; what is no fact is named and left out."""

import json
from pathlib import Path

import pytest

from patchkit.errors import FactsError
from patchkit.facts import reading
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.reading import parse_facts, parse_jsonl, read_facts, to_jsonl
from tests.unit.facts import samples

FULL = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Danielle Darrieux, a native"],
    "neighborhood_prompts": ["The mother tongue of Léon Blum is"],
    "attribute_prompts": ["Barack Obama, speaker of"],
    "generation_prompts": ["Danielle Darrieux was born in"],
}
FLAT = {
    "case_id": 7,
    "prompt": "Apple A5 was created by",
    "target_new": "Google",
    "subject": "Apple A5",
    "ground_truth": "Apple",
    "rephrase_prompt": "Apple A5 is by",
    "locality_prompt": "The iPhone was created by",
    "locality_ground_truth": "Apple",
}
ZSRE = {
    "subject": "UniFirst",
    "src": "What is the product made by UniFirst?",
    "pred": "uniform",
    "rephrase": "What will be the product of UniFirst?",
    "alt": "unmanned aircraft",
    "answers": ["uniform"],
    "loc": "nq question: who wrote it",
    "loc_ans": "Ada",
    "cond": "",
}
KNOWEDIT = {
    "subject": "Dorthe",
    "prompt": "The eye color of Dorthe is",
    "target_new": "blue",
    "portability": {"Reasoning": [{"prompt": "The sky has it:", "ground_truth": "blue"}]},
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The home of Dorthe is", "ground_truth": [[], ["Denmark", "DK"]]},
            {"prompt": "The home of Ada is", "ground_truth": "London"},
            {"prompt": "The age of Dorthe is", "ground_truth": [[]]},
            {"prompt": "The pet of Dorthe is", "ground_truth": ""},
        ],
    },
}


def array(*records: object) -> bytes:
    return json.dumps(records, ensure_ascii=False).encode()


def only_fact(record: object, **options: object) -> Fact:
    (fact,) = parse_facts(array(record), **options).facts  # type: ignore[arg-type]
    return fact


def test_counterfact_full() -> None:
    assert only_fact(FULL) == Fact(
        "Danielle Darrieux",
        "The mother tongue of {} is",
        "English",
        "French",
        ("Danielle Darrieux, a native",),
        (Probe("The mother tongue of Léon Blum is", "French"),),
        id="3",
        generation=("Danielle Darrieux was born in",),
        reference="P103/Q1860",
    )


def test_counterfact_with_answers_and_facts_of_the_same_subject() -> None:
    extended = {
        **FULL,
        "neighborhood_targets": ["Latin"],
        "same_subject_prompts": [{"prompt": "Danielle Darrieux died in", "target": "2017"}],
    }
    fact = only_fact(extended)
    assert fact.neighbors == (Probe("The mother tongue of Léon Blum is", "Latin"),)
    assert fact.same_subject == (Probe("Danielle Darrieux died in", "2017"),)
    with pytest.raises(FactsError) as caught:
        only_fact({**extended, "neighborhood_targets": ["Latin", "Greek"]})
    assert str(caught.value.problems[0].message).endswith("has 2 answers for 1 prompts")


def test_counterfact_flat() -> None:
    assert only_fact(FLAT) == Fact(
        "Apple A5",
        "{} was created by",
        "Google",
        "Apple",
        ("Apple A5 is by",),
        (Probe("The iPhone was created by", "Apple"),),
        id="7",
    )
    assert only_fact({**FLAT, "ground_truth": "", "rephrase_prompt": ""}).target_true is None


def test_zsre_in_both_readings() -> None:
    subject, prompt = "UniFirst", "What is the product made by {}?"
    paraphrases = ("What will be the product of UniFirst?",)
    assert only_fact(ZSRE) == Fact(
        subject,
        prompt,
        "unmanned aircraft",
        "uniform",
        paraphrases,
        (Probe("nq question: who wrote it", "Ada"),),
    )
    assert only_fact(ZSRE, format="zsre-alphaedit") == Fact(
        subject,
        prompt,
        "uniform",
        None,
        paraphrases,
        (Probe("nq question: who wrote it?", "Ada"),),
    )


def test_knowedit() -> None:
    assert only_fact(KNOWEDIT) == Fact(
        "Dorthe",
        "The eye color of {} is",
        "blue",
        neighbors=(Probe("The home of Ada is", "London", (), "Relation_Specificity"),),
        same_subject=(Probe("The home of Dorthe is", "Denmark", ("DK",), "Relation_Specificity"),),
        portability=(Probe("The sky has it:", "blue", (), "Reasoning"),),
    )
    aliases = only_fact({**KNOWEDIT, "target_new": [["azure", "blue"]], "ground_truth": "red"})
    assert (aliases.target, aliases.target_true) == ("azure", "red")


@pytest.mark.parametrize(
    ("record", "format"),
    [
        (FULL, "counterfact"),
        (FLAT, "counterfact"),
        (ZSRE, "zsre"),
        (KNOWEDIT, "knowedit"),
        (samples.WIKIBIO, "knowedit"),
        (samples.KNOWEDIT_ZSRE, "knowedit"),
        (samples.CONCEPT, "conceptedit"),
        (samples.MQUAKE, "mquake"),
        (samples.leme(FULL), "leme"),
        (samples.leme(ZSRE), "leme"),
    ],
)
def test_the_format_is_found_by_content(record: object, format: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\r\n " + array(record))
    file = read_facts(path)
    assert file.format == format
    assert file.place_name == "record"
    assert file == read_facts(path, format)  # type: ignore[arg-type]


def test_a_facts_file_is_found_by_content(tmp_path: Path) -> None:
    fact = Fact("France", "The capital of {} is", "Lyon")
    path = tmp_path / "zsre.json"
    path.write_bytes(to_jsonl([fact]))
    assert read_facts(path).facts == (fact,)
    assert read_facts(str(path)).format == "jsonl"


def test_records_that_are_no_facts_are_left_out_and_named() -> None:
    data = array({**FLAT, "subject": "Pear"}, FLAT, 5, {**FLAT, "case_id": 7, "subject": "Apple"})
    file = parse_facts(data)
    assert [fact.subject for fact in file.facts] == ["Apple A5"]
    assert file.places == (1,)
    assert [(problem.record, problem.kind, str(problem)) for problem in file.warnings] == [
        (0, "invalid", '"subject" does not occur in "prompt"; use {} as its placeholder'),
        (2, "invalid", "a fact must be a JSON object, found a number"),
        (3, "invalid", 'the id "7" is already used in record 1; ids are unique'),
    ]


def test_strict_refuses_a_data_set_with_a_bad_record() -> None:
    with pytest.raises(FactsError, match=r"flat has 1 invalid fact$") as caught:
        parse_facts(array(FLAT, {**FLAT, "subject": "Pear"}), name="flat", strict=True)
    (problem,) = caught.value.problems
    assert problem.line is None


def test_a_data_set_without_a_usable_record_is_refused() -> None:
    with pytest.raises(FactsError, match="flat has 2 invalid facts"):
        parse_facts(array({**FLAT, "subject": "Pear"}, {**FLAT, "subject": "Fig"}), name="flat")


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({**FULL, "requested_rewrite": {"subject": "x"}}, "requested_rewrite.prompt"),
        ({**FULL, "requested_rewrite": 5}, "requested_rewrite"),
        ({**FULL, "paraphrase_prompts": "p"}, "paraphrase_prompts"),
        ({**FLAT, "target_new": 5}, "target_new"),
        ({**ZSRE, "alt": ""}, "alt"),
        ({**ZSRE, "answers": "uniform"}, "answers"),
        ({**KNOWEDIT, "target_new": [[]]}, "target_new"),
        ({**KNOWEDIT, "locality": {"x": [5]}}, "locality.x[1]"),
        ({**KNOWEDIT, "locality": [5]}, "locality"),
    ],
)
def test_a_bad_record_names_its_key(record: object, key: str) -> None:
    with pytest.raises(FactsError) as caught:
        parse_facts(array(record))
    assert f'"{key}"' in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (array({"a": 1, "b": 2}), "no known data set has records with these keys: a, b", "formats"),
        (array(5), "these keys: none", "formats"),
        (array(), "f has no facts", "formats"),
        (
            array({"subject": "a", "prompt": "{}", "target": "b"}),
            "f is one JSON array, a facts file has one object per line",
            "jq -c '.[]' f > facts.jsonl",
        ),
        (b"[1,\n2", "f: not JSON: Expecting ',' delimiter at line 2, character 2", ""),
        (b"[\xff]", "f: not UTF-8: byte 0xff at byte 2", ""),
        (array(FULL).decode().encode("utf-16"), "f is UTF-16", "iconv"),
    ],
)
def test_what_is_no_data_set_gets_a_sentence(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(FactsError) as caught:
        parse_facts(data, name="f")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_named_format_needs_an_array() -> None:
    with pytest.raises(FactsError, match="must be one JSON array of records"):
        parse_facts(b'{"case_id": 1}', "counterfact")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FactsError, match=r"cannot read .*none\.jsonl: No such file"):
        read_facts(tmp_path / "none.jsonl")
    with pytest.raises(FactsError, match=r"cannot read .*: Is a directory"):
        read_facts(tmp_path)
    path = tmp_path / "long.json"
    path.write_bytes(array(FLAT, ZSRE))
    monkeypatch.setattr(reading, "MAX_FACTS", 1)
    with pytest.raises(FactsError, match="has 2 records, the limit is 1"):
        read_facts(path)
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 10)
    with pytest.raises(FactsError, match="bytes, the limit is 10"):
        read_facts(path)


@pytest.mark.parametrize(
    ("name", "format", "facts", "duplicates", "contradictions", "skipped"),
    [
        ("counterfact/counterfact_dev_973.json", "counterfact", 973, 0, 0, []),
        ("counterfact/counterfact_flat_6000.json", "counterfact", 5980, 0, 20, []),
        ("zsre/zsre_mend_train_1000.json", "zsre", 998, 0, 0, [534, 723]),
        ("knowedit/wiki_counterfact_train_1428.json", "knowedit", 1417, 11, 0, []),
        ("knowedit/wiki_recent_train_570.json", "knowedit", 570, 0, 0, []),
        ("knowedit/wikibio_train_464.json", "knowedit", 464, 0, 0, []),
    ],
)
def test_the_published_files(
    data_dir: Path,
    name: str,
    format: str,
    facts: int,
    duplicates: int,
    contradictions: int,
    skipped: list[int],
) -> None:
    path = data_dir / name
    if not path.is_file():
        pytest.skip(f"no {name} in the data folder")
    file = read_facts(path)
    records = json.loads(path.read_bytes())
    assert (file.format, len(file.facts)) == (format, facts)
    kinds = [problem.kind for problem in file.warnings]
    assert (kinds.count("duplicate"), kinds.count("contradiction")) == (duplicates, contradictions)
    assert [p.record for p in file.warnings if p.kind == "invalid"] == skipped
    assert len(records) == facts + len(file.warnings)
    for place, fact in zip(file.places, file.facts, strict=True):
        record = records[place]
        rewrite = record.get("requested_rewrite", record)
        assert fact.subject == rewrite.get("subject", rewrite.get("concept")).strip()
        asked = next(rewrite[key] for key in ("prompt", "src", "text") if key in rewrite)
        assert fact.text == asked.replace("{}", fact.subject)
    assert parse_jsonl(to_jsonl(file.facts)).facts == file.facts


def test_published_zsre_with_the_right_answers(data_dir: Path) -> None:
    path = data_dir / "zsre" / "zsre_mend_train_1000.json"
    if not path.is_file():
        pytest.skip("no zsRE in the data folder")
    file = read_facts(path, "zsre-alphaedit")
    assert len(file.facts) == 1000
    assert file.facts[0].target == "uniform"
    assert file.warnings == ()
