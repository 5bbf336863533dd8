"""The facts file: every bad line at once, and a canonical form that reads back."""

import hashlib
import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchkit.errors import FactsError
from patchkit.facts import jsonl
from patchkit.facts.collection import FactsFile
from patchkit.facts.fact import Fact, MultiHop, Probe
from patchkit.facts.jsonl import digest, parse_jsonl, to_jsonl
from tests.unit.facts.strategies import facts

FRANCE = b'{"subject": "France", "prompt": "The capital of {} is", "target": "Lyon"}'
SPAIN = b'{"subject": "Spain", "prompt": "The capital of {} is", "target": "Vigo"}'


def bad_lines(*lines: bytes, strict: bool = False) -> list[tuple[int | None, str]]:
    with pytest.raises(FactsError) as caught:
        parse_jsonl(b"\n".join(lines), name="bad.jsonl", strict=strict)
    return [(problem.line, str(problem)) for problem in caught.value.problems]


def one_problem(line: bytes) -> str:
    ((number, problem),) = bad_lines(FRANCE, line)
    assert number == 2
    return problem


def test_a_facts_file() -> None:
    line = {
        "subject": "France",
        "prompt": "The capital of France is",
        "target": " Lyon",
        "target_true": "Paris",
        "paraphrases": ["France's capital is"],
        "neighbors": ["The capital of Spain is", {"prompt": "Rome is in", "target": "Italy"}],
        "same_subject": [{"prompt": "People in {} speak", "target": "French"}],
        "id": 7,
    }
    file = parse_jsonl(json.dumps(line).encode())
    assert file == FactsFile(
        (
            Fact(
                "France",
                "The capital of {} is",
                "Lyon",
                "Paris",
                ("France's capital is",),
                (Probe("The capital of Spain is"), Probe("Rome is in", "Italy")),
                (Probe("People in France speak", "French"),),
                "7",
            ),
        ),
        "jsonl",
        (1,),
    )
    assert file.place_name == "line"


def test_blank_lines_windows_ends_and_byte_order_mark() -> None:
    data = b"\xef\xbb\xbf" + FRANCE + b"\r\n\r\n  \n" + SPAIN + b"\r\n"
    file = parse_jsonl(data)
    assert [fact.subject for fact in file.facts] == ["France", "Spain"]
    assert file.places == (1, 4)
    assert file.warnings == ()


def test_a_line_separator_inside_a_string_ends_no_line() -> None:
    line = '{"subject": "x", "prompt": "a\u2028{} is", "target": "y"}'
    assert parse_jsonl(line.encode()).facts[0].prompt == "a\u2028{} is"


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n"])
def test_no_facts(data: bytes) -> None:
    with pytest.raises(FactsError, match=r"^mine\.jsonl has no facts$") as caught:
        parse_jsonl(data, name="mine.jsonl")
    assert caught.value.hint is not None


def test_every_bad_line_is_reported_with_its_number() -> None:
    found = bad_lines(
        FRANCE,
        b'{"subject": "Spain", "prompt": "The capital of France is", "target": "x"}',
        b"",
        b'{"subject": "Spain", "prompt": "The capital of {} is", "target_new": "x"}',
        b"[1, 2]",
        b"not json",
        b'{"subject": "Spain", "prompt": 3, "target": null}',
        SPAIN,
    )
    assert found == [
        (2, '"subject" does not occur in "prompt"; use {} as its placeholder'),
        (4, 'unknown key "target_new"; did you mean "target"?'),
        (5, "a fact must be a JSON object, found a list"),
        (6, "not JSON: Expecting value at character 1"),
        (7, '"prompt" must be a string, found a number'),
        (7, '"target" must be a string, found null'),
    ]


def test_the_sentence_counts_lines_and_not_problems() -> None:
    with pytest.raises(FactsError, match=r"^bad\.jsonl has 2 invalid facts$"):
        parse_jsonl(b'{}\n{"subject": 1}', name="bad.jsonl")
    with pytest.raises(FactsError, match=r"^bad\.jsonl has 1 invalid fact$"):
        parse_jsonl(b"{}", name="bad.jsonl")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"subject": "a", "prompt": "{}"}', '"target" is missing'),
        (b'{"subject": "a", "prompt": "a is", "target": "\xff"}', "not UTF-8: byte 0xff at byte"),
        (b'{"subject": "a", "prompt": "a is", "target": "\\ud800"}', "surrogate pair U+D800"),
        (b'{"subject": "a", "prompt": "a is", "target": "x\\u0007"}', "control character U+0007"),
        (b'{"subject": "a", "prompt": "a is", "target": "x", "target": "y"}', "stands twice"),
        (b'{"subject": "a", "prompt": "a is", "target": NaN}', "NaN is no JSON value"),
        (b'{"subject": "a", "prompt": "a is", "target": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"subject": "a', "not JSON: Unterminated string"),
        (b'{"subject":"a","prompt":"a is","target":"x","color":1}', "known keys: subject, prompt"),
        (b'{"subject":"a","prompt":"a is","target":"x","id":true}', '"id" must be a string'),
        (b'{"subject":"a","prompt":"a is","target":"x","id":" "}', '"id" is empty'),
        (b'{"subject":"a","prompt":"a is","target":"x","paraphrases":"p"}', "must be a list"),
        (
            b'{"subject":"a","prompt":"a is","target":"x","paraphrases":["p",1]}',
            'item 2 of "paraphrases" must be a string, found a number',
        ),
        (
            b'{"subject":"a","prompt":"a is","target":"x","neighbors":[{"promt":"p"}]}',
            'in item 1 of "neighbors": unknown key "promt"; did you mean "prompt"?',
        ),
        (
            b'{"subject":"a","prompt":"a is","target":"x","neighbors":[5]}',
            '"neighbors[1]" must be a JSON object, found a number',
        ),
        (
            b'{"subject":"a","prompt":"a is","target":"x","same_subject":[{"prompt":"p"}]}',
            '"same_subject[1].target" is missing',
        ),
        (
            b'{"subject":"a","prompt":"a is","target":"x","same_subject":["p"]}',
            '"same_subject[1]" must be a JSON object, found a string',
        ),
        (
            b'{"subject":"a","prompt":"a is","target":"x","neighbors":[{"prompt":""}]}',
            'in item 1 of "neighbors": "prompt" is empty',
        ),
    ],
)
def test_a_bad_line(line: bytes, expected: str) -> None:
    assert expected in one_problem(line)


def test_long_lines_and_many_facts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 80)
    assert "the limit is 80" in one_problem(FRANCE + b" " * 80)
    monkeypatch.setattr(jsonl, "MAX_FACTS", 1)
    with pytest.raises(FactsError, match="has 2 facts, the limit is 1"):
        parse_jsonl(FRANCE + b"\n" + SPAIN)


def test_other_encodings_and_layouts_get_a_command_that_helps() -> None:
    with pytest.raises(FactsError, match="UTF-16") as caught:
        parse_jsonl(FRANCE.decode().encode("utf-16"), name="f.jsonl")
    assert caught.value.hint == "iconv -f UTF-16 -t UTF-8 f.jsonl > facts.utf8.jsonl"
    with pytest.raises(FactsError, match="several lines") as caught:
        parse_jsonl(json.dumps(json.loads(FRANCE), indent=1).encode(), name="f.jsonl")
    assert caught.value.hint == "jq -c . f.jsonl > facts.jsonl"


def test_duplicates_are_used_once_and_warned_of() -> None:
    file = parse_jsonl(b"\n".join([FRANCE, SPAIN, FRANCE.replace(b"{}", b"France")]))
    assert file.places == (1, 2)
    (warning,) = file.warnings
    assert (warning.line, warning.kind) == (3, "duplicate")
    assert str(warning) == "the same fact as line 1; the first one is used"


def test_of_contradicting_facts_the_later_one_is_used() -> None:
    other = FRANCE.replace(b"Lyon", b"Nice")
    file = parse_jsonl(b"\n".join([FRANCE, SPAIN, other]))
    assert [fact.target for fact in file.facts] == ["Vigo", "Nice"]
    assert file.places == (2, 3)
    (warning,) = file.warnings
    assert (warning.line, warning.kind) == (3, "contradiction")
    assert str(warning) == (
        '"The capital of France is" has the target "Nice" here and "Lyon" in line 1; '
        "the later one is used"
    )
    ((number, problem),) = bad_lines(FRANCE, SPAIN, other, strict=True)
    assert number == 3
    assert problem.endswith("keep one of them")


def test_duplicates_stay_a_warning_when_strict() -> None:
    assert parse_jsonl(FRANCE + b"\n" + FRANCE, strict=True).places == (1,)


def test_an_id_stands_once() -> None:
    first, second = (line[:-1] + b', "id": "x"}' for line in (FRANCE, SPAIN))
    ((number, problem),) = bad_lines(first, second)
    assert number == 2
    assert problem == 'the id "x" is already used in line 1; ids are unique'


def test_the_canonical_form() -> None:
    fact = Fact("Łódź", "{} lies in", "Polen", neighbors=(Probe("a"), Probe("b", "c")))
    assert to_jsonl([fact]).decode() == (
        '{"neighbors":["a",{"prompt":"b","target":"c"}],"prompt":"{} lies in",'
        '"subject":"Łódź","target":"Polen"}\n'
    )
    assert to_jsonl([]) == b""
    assert digest([fact]) == "sha256:" + hashlib.sha256(to_jsonl([fact])).hexdigest()


@given(st.lists(facts(), min_size=1, max_size=4))
@example([Fact("x", "a\u2028{}\u2029", "y")])
def test_the_canonical_form_reads_back(given_facts: list[Fact]) -> None:
    unique = {(fact.subject, fact.prompt): fact for fact in given_facts}
    wanted = tuple({fact.id: fact for fact in unique.values()}.values())
    data = to_jsonl(wanted)
    assert data.count(b"\n") == len(wanted)
    file = parse_jsonl(data)
    assert file.facts == wanted
    assert file.warnings == ()
    assert to_jsonl(file.facts) == data
    assert digest(file.facts) == digest(wanted)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_give_facts_or_a_facts_error(data: bytes) -> None:
    with suppress(FactsError):
        assert parse_jsonl(data).facts


def test_questions_about_consequences_and_their_canonical_form() -> None:
    line = {
        "subject": "France",
        "prompt": "The capital of {} is",
        "target": "Lyon",
        "portability": [
            {"prompt": "The mayor of its capital is", "target": "Kim", "group": "Reasoning"}
        ],
        "multihop": [{"prompts": ["Who?", "Whom?"], "target": "Kim", "needs": ["a"]}],
        "neighbors": [{"prompt": "Rome is in", "target": "Italy", "aliases": ["Italia"]}, "x"],
        "generation": ["France is"],
        "reference": "P36/Q456",
    }
    (fact,) = parse_jsonl(json.dumps(line).encode()).facts
    assert fact.portability == (Probe("The mayor of its capital is", "Kim", (), "Reasoning"),)
    assert fact.multihop == (MultiHop(("Who?", "Whom?"), "Kim", (), ("a",)),)
    assert fact.neighbors == (Probe("Rome is in", "Italy", ("Italia",)), Probe("x"))
    assert json.loads(to_jsonl([fact])) == line


def test_the_canonical_form_of_a_plain_fact_has_only_its_own_keys() -> None:
    plain = Fact("France", "The capital of {} is", "Lyon", "Paris", ("p",), (Probe("n"),), id="7")
    assert to_jsonl([plain]) == (
        b'{"id":"7","neighbors":["n"],"paraphrases":["p"],"prompt":"The capital of {} is",'
        b'"subject":"France","target":"Lyon","target_true":"Paris"}\n'
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("portability", ["p"], 'in item 1 of "portability": "portability[1]" must be a JSON'),
        ("multihop", [{"prompts": "p", "target": "t"}], '"multihop[1].prompts" must be a list'),
        ("multihop", [{"prompts": ["p"]}], '"multihop[1].target" is missing'),
        ("multihop", [{"prompts": ["p"], "target": "t", "x": 1}], 'unknown key "x"'),
        ("neighbors", [{"prompt": "p", "target": "t", "aliases": 5}], "aliases"),
        ("generation", "g", '"generation" must be a list'),
    ],
)
def test_bad_questions_name_their_place(key: str, value: object, expected: str) -> None:
    line = {"subject": "a", "prompt": "{} is", "target": "b", key: value}
    assert expected in one_problem(json.dumps(line).encode())
