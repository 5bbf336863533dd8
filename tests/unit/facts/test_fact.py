"""What a fact is: one place for the subject, spaces where they belong, problems in words."""

import re
from collections.abc import Callable
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, MultiHop, Probe, Problem, joined, joint
from tests.unit.facts.strategies import facts


def problems(*arguments: object, **named: object) -> list[str]:
    with pytest.raises(FactsError) as caught:
        Fact(*arguments, **named)  # type: ignore[arg-type]
    assert caught.value.message == "; ".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def test_the_subject_is_replaced_by_its_placeholder() -> None:
    fact = Fact("France", "The capital of France is", "Lyon")
    assert fact.prompt == "The capital of {} is"
    assert fact.text == "The capital of France is"
    assert fact == Fact("France", "The capital of {} is", "Lyon")


def test_with_a_placeholder_the_subject_may_occur_elsewhere() -> None:
    fact = Fact("Paris", "Paris is a name. {} lies in", "Texas")
    assert fact.text == "Paris is a name. Paris lies in"


def test_spaces_around_subject_and_target_are_dropped_and_text_is_left_alone() -> None:
    fact = Fact(" Cafe\u0301 ", "{} is", "  a\u0308 ", target_true=" b ")
    assert (fact.subject, fact.target, fact.target_true) == ("Cafe\u0301", "a\u0308", "b")


def test_placeholders_elsewhere_are_filled() -> None:
    fact = Fact(
        "Spain",
        "{} has",
        "x",
        paraphrases=("In {}", "Spain has"),
        same_subject=(Probe("{} speaks", "Spanish"),),
    )
    assert fact.paraphrases == ("In Spain", "Spain has")
    assert fact.same_subject == (Probe("Spain speaks", "Spanish"),)


def test_ids_are_derived_from_the_content_unless_given() -> None:
    one, same = Fact("a", "{} is", "b"), Fact("a", "a is", " b")
    assert one.id == same.id == one.derived_id
    assert len(one.id) == 16
    assert Fact("a", "{} is", "c").id != one.id
    assert Fact("a", "{} is", "b", id="mine").id == "mine"


@pytest.mark.parametrize(
    ("subject", "prompt", "expected"),
    [
        ("Spain", "The capital of France is", 'does not occur in "prompt"; use {} as its'),
        ("France", "the capital of france is", "other spelling"),
        ("Cafe\u0301", "The Café is", "other spelling"),
        ("ana", "banana is", "occurs more than once"),
        ("a", "a or a", "write {} for the one that is meant"),
        ("a", "{} or {}", '"prompt" has {} 2 times, one is needed'),
        ("a{}b", "a{}b is", '"subject" must not contain {}'),
    ],
)
def test_an_unclear_place_of_the_subject(subject: str, prompt: str, expected: str) -> None:
    (found,) = problems(subject, prompt, "x")
    assert expected in found


def test_all_problems_of_a_fact_are_reported() -> None:
    found = problems("", "x\x00", "a\nb", target_true="\ud800", paraphrases=(" ",), id="i\x7f")
    assert found == [
        '"subject" is empty',
        '"prompt" contains the control character U+0000 at character 2; remove it',
        '"target" contains the control character U+000A at character 2; remove it',
        '"target_true" contains half of a surrogate pair U+D800 at character 1; remove it',
        '"id" contains the control character U+007F at character 2; remove it',
        '"paraphrases" is empty',
    ]


def test_a_prompt_may_have_several_lines() -> None:
    assert Fact("x", "Q:\tWho is {}?\nA:", "y").text == "Q:\tWho is x?\nA:"


def test_neighbors_are_written_out() -> None:
    (found,) = problems("x", "{} is", "y", neighbors=(Probe("{} is"),))
    assert found.startswith('"neighbors" must not contain {}')


def test_a_probe_is_checked_too() -> None:
    assert Probe("x", " y ").target == "y"
    with pytest.raises(FactsError, match='"prompt" is empty; "target" is empty'):
        Probe("", " ")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("The capital of France is", "Lyon", " "),
        ("The capital of France is ", "Lyon", ""),
        ("A:\n", "Lyon", ""),
        ("The flag is", "🇩🇰", " "),
        ("It costs", "$5", " "),
        ("It is", "-5", " "),
        ("He said (", "no", ""),
        ("He said “", "no", ""),
        ("Well", ", no", ""),
        ("Well", "!", ""),
        ("日本の首都は", "東京", ""),
        ("The capital is", "東京", " "),
        ("首都は", "Paris", " "),
        ("เมืองหลวงคือ", "กรุงเทพ", ""),
        ("수도는", "서울", " "),
        ("", "Lyon", ""),
    ],
)
def test_the_space_between_prompt_and_target(before: str, after: str, expected: str) -> None:
    assert joint(before, after) == expected
    assert joined(before, after) == before + expected + after


@given(st.text(), st.text(min_size=1))
def test_joining_adds_at_most_one_space(before: str, after: str) -> None:
    assert joint(before, after) in ("", " ")
    assert joined(before, after).startswith(before)
    assert joined(before, after).endswith(after)


@given(facts())
def test_a_fact_is_its_own_normal_form(fact: Fact) -> None:
    assert fact.prompt.count("{}") == 1
    assert fact.subject in fact.text
    again = Fact(**{field.name: getattr(fact, field.name) for field in fields(Fact)})
    assert again == fact


def test_a_problem_reads_as_one_sentence() -> None:
    assert str(Problem(3, "x", "it is wrong", "mend it")) == "it is wrong; mend it"
    assert str(Problem(3, "x", "it is wrong")) == "it is wrong"


def test_every_prompt_that_names_the_subject_is_filled() -> None:
    fact = Fact(
        "Spain",
        "{} has",
        "x",
        portability=(Probe("the king of {}", "y", ("z",), "Reasoning"),),
        multihop=(MultiHop(("who rules {}?",), "y"),),
        generation=("{} is",),
    )
    assert fact.portability == (Probe("the king of Spain", "y", ("z",), "Reasoning"),)
    assert fact.multihop == (MultiHop(("who rules Spain?",), "y"),)
    assert fact.generation == ("Spain is",)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"portability": (Probe("p"),)}, '"portability" needs targets'),
        ({"generation": (" ",)}, '"generation" is empty'),
        ({"reference": "a\nb"}, '"reference" contains the control character U+000A'),
    ],
)
def test_bad_questions_about_consequences(named: dict[str, object], expected: str) -> None:
    assert [expected in problem for problem in problems("a", "{} is", "b", **named)] == [True]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Probe("p", None, ("a",)), '"aliases" need a "target"'),
        (lambda: Probe("p", "t", (" ",)), '"aliases" is empty'),
        (lambda: Probe("p", "t", (), "a\nb"), '"group" contains'),
        (lambda: MultiHop((), "t"), '"prompts" is empty'),
        (lambda: MultiHop(("p",), " "), '"target" is empty'),
        (lambda: MultiHop(("p",), "t", (), ("",)), '"needs" is empty'),
    ],
)
def test_probes_say_what_is_wrong(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(FactsError, match=re.escape(expected)):
        make()
