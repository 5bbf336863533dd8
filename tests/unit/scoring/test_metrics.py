"""Every figure, against a table small enough to count by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.facts.fact import Fact, MultiHop, Probe
from patchkit.facts.position import Encoded
from patchkit.scoring.answers import Answer
from patchkit.scoring.metrics import CRITERIA, FIGURES, harmonic_mean, judge, measure
from patchkit.scoring.questions import (
    METRICS,
    Metric,
    Question,
    Reply,
    ask,
    questions,
    spoken,
)
from tests.unit.models.factory import tiny, tiny_tokenizer

FACT = Fact(
    subject="France",
    prompt="The capital of {} is",
    target="Rome",
    target_true="Paris",
    paraphrases=("{} has as capital", "The seat of government of {} is"),
    neighbors=(Probe("The capital of Italy is", "Rome"), Probe("The yen is the")),
    same_subject=(Probe("In {} people speak", "French"),),
)
WANTED = Encoded((0, 7, 8), None, ((0, 7), (1, 8)))


def question(metric: Metric, *, wanted: Encoded = WANTED, rival: bool = False) -> Question:
    return Question(metric, None, "", wanted, WANTED if rival else None)


def reply(right: bool, first: bool = True, wanted: float = -1.0, rival: float = -2.0) -> Reply:
    """A reply of two tokens with mean log-probabilities `wanted` and `rival`."""
    predicted = (7, 8) if right else (7, 9) if first else (6, 8)
    answer = Answer(predicted, (7, 8), (wanted, wanted))
    return Reply(answer, Answer((6,), (6,), (rival,)))


def test_changed_facts_count_what_is_right_after() -> None:
    asked = [question("efficacy")] * 4
    before = [reply(False), reply(False), reply(True), reply(True)]
    after = [reply(True), reply(True), reply(True), reply(False)]
    metrics = measure(asked, before, after)
    assert metrics.efficacy == 3 / 4
    assert metrics.tallies["efficacy"].before == 2 / 4


@pytest.mark.parametrize("metric", ["neighborhood", "same_subject", "retention"])
def test_other_facts_count_what_is_kept_of_what_was_right(metric: Metric) -> None:
    asked = [question(metric)] * 5
    before = [reply(True), reply(True), reply(True), reply(False), reply(False)]
    after = [reply(True), reply(False), reply(True), reply(True), reply(False)]
    metrics = measure(asked, before, after)
    assert metrics.value(metric) == 2 / 3
    tally = metrics.tallies[metric]
    assert (tally.asked, tally.right_before, tally.right_after, tally.kept) == (5, 3, 3, 2)
    assert (tally.before, tally.after) == (3 / 5, 3 / 5)


def test_criteria_read_the_same_answers_differently() -> None:
    asked = [question("efficacy", rival=True)] * 3
    before = [reply(False)] * 3
    after = [
        reply(right=True, wanted=-3.0, rival=-2.0),
        reply(right=False, first=True, wanted=-1.0, rival=-2.0),
        reply(right=False, first=False, wanted=-1.5, rival=-1.4),
    ]
    shares = {
        name: measure(asked, before, after, name).efficacy
        for name in ("argmax", "first-token", "probability")
    }
    assert shares == {"argmax": 1 / 3, "first-token": 2 / 3, "probability": 1 / 3}


def test_probability_compares_per_token() -> None:
    long = Answer((7, 8), (7, 8), (-1.0, -1.0))
    short = Answer((6,), (6,), (-1.5,))
    asked = [question("efficacy", rival=True)]
    assert measure(asked, [Reply(long, short)], [Reply(long, short)], "probability").efficacy == 1


def test_probability_leaves_out_what_has_no_rival() -> None:
    asked = [question("efficacy", rival=True), question("efficacy")]
    after = [reply(True), replace(reply(True), rival=None)]
    metrics = measure(asked, after, after, "probability")
    assert metrics.tallies["efficacy"].asked == 1


def test_a_probe_without_target_must_keep_its_top_answer() -> None:
    open_question = question("neighborhood", wanted=Encoded((0, 7), None, ()))
    same, other = Reply(Answer((5,)), None), Reply(Answer((6,)), None)
    for criterion in CRITERIA:
        assert judge(open_question, same, same, criterion) == (True, True)
        assert judge(open_question, same, other, criterion) == (True, False)


def test_generated_answers_are_read_as_text() -> None:
    asked = [replace(question("efficacy"), accepted=("Rome", "Roma"))] * 4
    texts = (" Rome, of course", " roma", " Romeo", " the city of Rome")
    after = [replace(reply(False), text=text) for text in texts]
    metrics = measure(asked, [reply(True)] * 4, after, "generated")
    assert metrics.tallies["efficacy"].asked == 0
    metrics = measure(asked, after, after, "generated")
    assert metrics.efficacy == 2 / 4


def test_wordings_of_one_question_count_once_and_one_right_answer_is_enough() -> None:
    first, second = replace(question("multihop"), fact=0, case=0), question("multihop")
    second = replace(second, fact=0, case=1)
    other = replace(question("multihop"), fact=1, case=0)
    asked = [first, first, first, second, second, other]
    before = [reply(False), reply(True), *[reply(False)] * 4]
    after = [reply(False), reply(False), reply(True), reply(False), reply(False), reply(True)]
    metrics = measure(asked, before, after)
    assert metrics.multihop == 2 / 3
    tally = metrics.tallies["multihop"]
    assert (tally.asked, tally.right_before, tally.right_after, tally.kept) == (3, 1, 2, 1)


def test_consequences_count_what_is_right_after() -> None:
    after = [reply(True), reply(False)]
    metrics = measure([question("portability")] * 2, [reply(False)] * 2, after)
    assert metrics.portability == 1 / 2


def test_score_is_the_harmonic_mean_of_four() -> None:
    asked = [question(metric) for metric in METRICS for _ in range(2)]
    before = [reply(True)] * len(asked)
    halves = {"efficacy", "same_subject"}
    after = [reply(q.metric not in halves or index % 2 == 0) for index, q in enumerate(asked)]
    metrics = measure(asked, before, after)
    assert metrics.same_subject == 0.5
    assert metrics.score == pytest.approx(4 / (2 + 1 + 1 + 1))
    assert metrics.value("score") == metrics.score


def test_the_published_score_has_three_members() -> None:
    asked = [question(m, rival=True) for m in ("efficacy", "paraphrase", "neighborhood")]
    right = [reply(True)] * 3
    assert measure(asked, right, right, "probability").score == 1
    assert measure(asked, right, right, "argmax").score is None


def test_a_metric_without_prompts_is_not_a_number() -> None:
    metrics = measure([], [], [])
    assert all(metrics.value(figure) is None for figure in FIGURES)
    assert metrics.tallies["efficacy"].before is None
    nothing_right = measure([question("retention")], [reply(False)], [reply(True)])
    assert nothing_right.retention is None


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=6))
def test_the_harmonic_mean_lies_below_the_mean(values: list[float]) -> None:
    mean = harmonic_mean(values)
    assert min(values) - 1e-12 <= mean <= sum(values) / len(values) + 1e-12
    assert (mean == 0) == (0 in values)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_counts_are_consistent(verdicts: list[tuple[bool, bool]]) -> None:
    asked = [question("retention")] * len(verdicts)
    tally = measure(
        asked, [reply(old) for old, _ in verdicts], [reply(new) for _, new in verdicts]
    ).tallies["retention"]
    assert tally.kept <= min(tally.right_before, tally.right_after) <= tally.asked


def test_a_facts_questions_are_all_of_its_prompts() -> None:
    asked = questions(tiny_tokenizer(), [FACT], [Probe("The language of Brazil is", "Portuguese")])
    assert [(q.metric, q.fact, q.prompt) for q in asked] == [
        ("efficacy", 0, "The capital of France is"),
        ("paraphrase", 0, "France has as capital"),
        ("paraphrase", 0, "The seat of government of France is"),
        ("neighborhood", 0, "The capital of Italy is"),
        ("neighborhood", 0, "The yen is the"),
        ("same_subject", 0, "In France people speak"),
        ("retention", None, "The language of Brazil is"),
    ]
    decode = tiny_tokenizer().decode

    def wanted(encoded: Encoded | None) -> str | None:
        return None if encoded is None else decode([token for _, token in encoded.labels])

    assert [wanted(q.wanted) for q in asked] == [
        " Rome", " Rome", " Rome", " Rome", "", " French", " Portuguese",
    ]  # fmt: skip
    assert [wanted(q.rival) for q in asked] == [
        " Paris", " Paris", " Paris", None, None, None, None,
    ]  # fmt: skip


def test_a_neighbors_rival_is_the_facts_target_unless_it_is_the_answer() -> None:
    probes = (Probe("The capital of Italy is", "Rome"), Probe("The yen is", "money"), Probe("The"))
    asked = questions(tiny_tokenizer(), [replace(FACT, neighbors=probes)])
    rivals = [q.rival for q in asked if q.metric == "neighborhood"]
    assert [rival is not None for rival in rivals] == [False, True, False]


def test_the_model_answers_each_question_with_its_rival() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    asked = questions(tokenizer, [FACT, replace(FACT, target="London", id="")])
    replies = ask(model, asked)
    for q, given_reply in zip(asked, replies, strict=True):
        alone = ask(model, [q])[0]
        assert given_reply.wanted.predicted == alone.wanted.predicted
        assert (given_reply.rival is None) == (q.rival is None)
        assert given_reply.wanted.tokens == tuple(token for _, token in q.wanted.labels)
        if q.rival is not None and given_reply.rival is not None:
            assert given_reply.rival.tokens == tuple(token for _, token in q.rival.labels)


def test_consequences_and_multihop_questions_are_asked_where_all_their_facts_are() -> None:
    hop = MultiHop(
        ("Who rules its capital?", "Its capital is ruled by"), "Kim", ("Li",), ("other",)
    )
    fact = replace(
        FACT,
        portability=(Probe("The mayor of Rome is", "Kim", ("Li",), "Reasoning"),),
        multihop=(hop, replace(hop, needs=())),
    )
    other = Fact("Italy", "The capital of {} is", "Bari", id="other")

    def listed(*facts: Fact) -> list[tuple[str, int | None, tuple[str, ...], str | None]]:
        found = questions(tiny_tokenizer(), facts)
        chosen = [q for q in found if q.metric in ("portability", "multihop")]
        return [(q.prompt, q.case, q.accepted, q.group) for q in chosen]

    answers = ("Kim", "Li")
    mayor = ("The mayor of Rome is", None, answers, "Reasoning")
    alone = [(prompt, 1, answers, None) for prompt in hop.prompts]
    together = [(prompt, 0, answers, None) for prompt in hop.prompts]
    assert listed(fact) == [mayor, *alone]
    assert listed(fact, other) == [mayor, *together, *alone]


def test_free_answers_are_those_of_greedy_decoding() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    asked = questions(tokenizer, [FACT, replace(FACT, target="a longer one", id="")])
    replies = spoken(model, tokenizer, asked, ask(model, asked))
    for q, found in zip(asked, replies, strict=True):
        if not q.accepted:
            assert found.text is None
            continue
        assert found.text is not None
        ids = tokenizer(q.prompt, return_tensors="pt")
        whole = model.generate(**ids, max_new_tokens=24, do_sample=False)[0]
        text = tokenizer.decode(whole, skip_special_tokens=True).removeprefix(q.prompt)
        assert text.startswith(found.text.rstrip("\ufffd"))


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "opt"])
def test_an_answer_that_is_right_token_by_token_is_written_freely(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    asked = []
    for prompt in ("The capital of France is", "Isaac Newton wrote about", "The yen is the"):
        ids = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**ids, max_new_tokens=2, do_sample=False)[0].tolist()
        start = ids["input_ids"].shape[1]
        labels = tuple((place - 1, whole[place]) for place in range(start, len(whole)))
        text = tokenizer.decode(whole[start:])
        encoded = Encoded(tuple(whole), None, labels)
        asked.append(Question("retention", None, prompt, encoded, None, (text,)))
    for q, found in zip(asked, spoken(model, tokenizer, asked, ask(model, asked)), strict=True):
        assert found.wanted.exact
        assert found.text is not None
        assert found.text.startswith(q.accepted[0])
