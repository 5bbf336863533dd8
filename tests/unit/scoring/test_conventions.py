"""AlphaEdit's and EasyEdit's figures, against tables small enough to compute by hand."""

import pytest

from patchkit.facts.position import Encoded
from patchkit.scoring.alphaedit import alphaedit
from patchkit.scoring.answers import Answer
from patchkit.scoring.conventions import by_convention
from patchkit.scoring.easyedit import easyedit
from patchkit.scoring.figures import Figure, Row
from patchkit.scoring.metrics import measure
from patchkit.scoring.questions import Metric, Question, Reply


def row(
    metric: Metric,
    fact: int,
    old: tuple[int, ...],
    new: tuple[int, ...],
    *,
    wanted: tuple[int, ...] = (1, 2, 3),
    logprobs: tuple[float, float] = (-1.0, -1.0),
    rival: float | None = None,
    group: str | None = None,
) -> Row:
    """A question whose wanted tokens are 1, 2, 3; `old` and `new` are what the models predict.

    `logprobs` are the mean log-probabilities of the wanted answer before and after, `rival` that
    of the other one, of two tokens.
    """
    labels = tuple(enumerate(wanted))
    encoded = Encoded((0, *wanted), None, labels)
    other = None if rival is None else encoded
    question = Question(metric, fact, "", encoded, other, group=group)
    replies = []
    for predicted, logprob in zip((old, new), logprobs, strict=True):
        answer = Answer(predicted, wanted, (logprob,) * len(wanted))
        against = None if rival is None else Answer((7, 8), (7, 8), (rival, rival))
        replies.append(Reply(answer, against))
    return question, replies[0], replies[1]


RIGHT, TWO, ONE, NONE = (1, 2, 3), (1, 2, 9), (1, 9, 9), (9, 9, 9)


def named(figures: tuple[Figure, ...]) -> dict[str, Figure]:
    assert len({figure.name for figure in figures}) == len(figures)
    return {figure.name: figure for figure in figures}


def test_alphaedit_compares_probabilities_per_token() -> None:
    rows = [
        row("efficacy", 0, NONE, NONE, logprobs=(-3.0, -1.0), rival=-2.0),
        row("efficacy", 1, NONE, RIGHT, logprobs=(-3.0, -2.5), rival=-2.0),
    ]
    found = named(alphaedit(rows))
    assert found["efficacy_success"] == Figure("efficacy_success", 0.0, 0.5, 2)
    assert found["efficacy_accuracy"] == Figure("efficacy_accuracy", 0.0, 0.5, 2)
    assert found["efficacy_tokens"] == Figure("efficacy_tokens", 0.0, 0.5, 2)
    assert found["paraphrase_success"] == Figure("paraphrase_success", None, None, 0)
    assert found["score"].patched is None


def test_alphaedit_averages_within_a_record_first() -> None:
    rows = [
        row("neighborhood", 0, RIGHT, RIGHT, rival=-2.0),
        row("neighborhood", 0, RIGHT, NONE, logprobs=(-1.0, -4.0), rival=-2.0),
        row("neighborhood", 0, RIGHT, NONE, logprobs=(-1.0, -4.0), rival=-2.0),
        row("neighborhood", 1, RIGHT, TWO, rival=-2.0),
    ]
    found = named(alphaedit(rows))
    assert found["neighborhood_success"].patched == pytest.approx((1 / 3 + 1) / 2)
    assert found["neighborhood_accuracy"].patched == pytest.approx((1 / 3 + 0) / 2)
    assert found["neighborhood_tokens"].patched == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found["neighborhood_success"].count == 2


def test_alphaedits_score_is_the_harmonic_mean_of_three_successes() -> None:
    rows = [
        row("efficacy", 0, NONE, RIGHT, rival=-2.0),
        row("paraphrase", 0, NONE, RIGHT, rival=-2.0),
        row("neighborhood", 0, NONE, RIGHT, rival=-2.0),
        row("neighborhood", 0, NONE, RIGHT, logprobs=(-1.0, -9.0), rival=-2.0),
    ]
    assert named(alphaedit(rows))["score"].patched == pytest.approx(3 / (1 + 1 + 2))


def test_alphaedit_leaves_out_what_has_no_answer() -> None:
    rows = [row("neighborhood", 0, (5,), (5,), wanted=()), row("efficacy", 0, NONE, RIGHT)]
    found = named(alphaedit(rows))
    assert found["neighborhood_accuracy"].count == 0
    assert found["efficacy_success"].count == 0
    assert found["efficacy_accuracy"].patched == 1


def test_easyedit_gives_credit_for_part_of_an_answer() -> None:
    rows = [
        row("efficacy", 0, NONE, RIGHT),
        row("efficacy", 1, NONE, ONE),
        row("paraphrase", 0, ONE, RIGHT),
        row("paraphrase", 0, ONE, TWO),
    ]
    found = named(easyedit(rows))
    assert found["rewrite_acc"] == Figure("rewrite_acc", 0.0, pytest.approx((1 + 1 / 3) / 2), 2)
    assert found["rephrase_acc"].base == pytest.approx(1 / 3)
    assert found["rephrase_acc"].patched == pytest.approx((1 + 2 / 3) / 2)


def test_easyedits_locality_is_the_unchanged_prediction_right_or_wrong() -> None:
    rows = [
        row("neighborhood", 0, (9, 8, 7), (9, 8, 7)),
        row("neighborhood", 1, RIGHT, ONE),
        row("same_subject", 1, NONE, (9, 9, 3), group="Forgetfulness"),
        row("neighborhood", 2, (5,), (5,), wanted=()),
    ]
    found = named(easyedit(rows))
    assert found["locality"].base is None
    assert found["locality"].patched == pytest.approx((1 + (1 / 3 + 2 / 3) / 2 + 1) / 3)
    assert found["locality/neighborhood"].patched == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert found["locality/Forgetfulness"] == Figure(
        "locality/Forgetfulness", None, pytest.approx(2 / 3), 1
    )


def test_easyedits_portability_is_also_given_by_group() -> None:
    rows = [
        row("portability", 0, NONE, RIGHT, group="Reasoning"),
        row("portability", 0, NONE, ONE, group="Subject_Aliasing"),
        row("portability", 1, NONE, TWO, group="Reasoning"),
        row("portability", 2, NONE, NONE),
    ]
    found = named(easyedit(rows))
    assert found["portability"].patched == pytest.approx(((1 + 1 / 3) / 2 + 2 / 3 + 0) / 3)
    assert found["portability/Reasoning"].patched == pytest.approx((1 + 2 / 3) / 2)
    assert found["portability/Subject_Aliasing"].count == 1
    assert [name for name in found if name.startswith("portability/")] == [
        "portability/Reasoning",
        "portability/Subject_Aliasing",
    ]


def test_one_run_gives_all_conventions() -> None:
    asked, before, after = zip(row("efficacy", 0, NONE, TWO), strict=True)
    metrics = {"argmax": measure(asked, before, after)}
    written = (Figure("fluency", 6.0, 5.0, 1), Figure("consistency", 0.3, 0.2, 1))
    found = by_convention(asked, before, after, metrics, written)
    names = {convention: [f.name for f in figures] for convention, figures in found.items()}
    assert names["patchkit"][-3:] == ["score", "fluency", "consistency"]
    assert names["alphaedit"][-2:] == ["fluency", "consistency"]
    assert names["easyedit"][-1] == "fluency"
    assert named(found["patchkit"])["efficacy"] == Figure("efficacy", 0.0, 0.0, 1)
    assert named(found["easyedit"])["rewrite_acc"].patched == pytest.approx(2 / 3)
