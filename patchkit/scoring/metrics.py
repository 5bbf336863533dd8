"""Figures from answers: how many facts took, and how much of the rest was kept.

`docs/metrics.md` defines every figure and says how it relates to published ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from patchkit.scoring.questions import METRICS, Metric, Question, Reply
from patchkit.scoring.texts import answered

Criterion = Literal["argmax", "first-token", "probability", "generated"]
CRITERIA: tuple[Criterion, ...] = ("argmax", "first-token", "probability", "generated")

FigureName = Metric | Literal["score"]
FIGURES: tuple[FigureName, ...] = (*METRICS, "score")

_CHANGED: tuple[Metric, ...] = ("efficacy", "paraphrase", "portability", "multihop")
_SCORED: tuple[Metric, ...] = ("efficacy", "paraphrase", "neighborhood", "retention")


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the questions of one metric: asked, right before, right after, right both times.

    Wordings of one question count once, as right if one of them is answered rightly.
    """

    asked: int
    right_before: int
    right_after: int
    kept: int

    @property
    def before(self) -> float | None:
        """Share right before the edit; None if nothing was asked."""
        return self.right_before / self.asked if self.asked else None

    @property
    def after(self) -> float | None:
        """Share right after the edit; None if nothing was asked."""
        return self.right_after / self.asked if self.asked else None

    @property
    def kept_share(self) -> float | None:
        """Of those right before, the share still right after; None if none was right before."""
        return self.kept / self.right_before if self.right_before else None


@dataclass(frozen=True, slots=True)
class Metrics:
    """All figures under one criterion; a metric is None where it had no prompts."""

    criterion: Criterion
    tallies: Mapping[Metric, Tally]

    def value(self, figure: FigureName) -> float | None:
        """The figure that counts: share right after for changed facts, kept share for others."""
        if figure == "score":
            return self.score
        tally = self.tallies[figure]
        return tally.after if figure in _CHANGED else tally.kept_share

    @property
    def efficacy(self) -> float | None:
        """Share of edit prompts answered with the target."""
        return self.value("efficacy")

    @property
    def paraphrase(self) -> float | None:
        """Share of paraphrases answered with the target."""
        return self.value("paraphrase")

    @property
    def neighborhood(self) -> float | None:
        """Kept share of neighbourhood prompts."""
        return self.value("neighborhood")

    @property
    def same_subject(self) -> float | None:
        """Kept share of other facts of edited subjects."""
        return self.value("same_subject")

    @property
    def portability(self) -> float | None:
        """Share of consequences of edited facts that are answered rightly."""
        return self.value("portability")

    @property
    def multihop(self) -> float | None:
        """Share of multi-hop questions that are answered rightly in one of their wordings."""
        return self.value("multihop")

    @property
    def retention(self) -> float | None:
        """Kept share of held-out facts of unedited subjects."""
        return self.value("retention")

    @property
    def score(self) -> float | None:
        """Harmonic mean of the metrics that are scored; None if one is missing.

        Scored are efficacy, paraphrase, neighborhood and retention; by probability, which
        retention has no rival for, the first three.
        """
        scored = _SCORED[:3] if self.criterion == "probability" else _SCORED
        values = [self.value(metric) for metric in scored]
        present = [value for value in values if value is not None]
        return harmonic_mean(present) if len(present) == len(values) else None


def measure(
    asked: Sequence[Question],
    before: Sequence[Reply],
    after: Sequence[Reply],
    criterion: Criterion = "argmax",
) -> Metrics:
    """Count the answers of the base and of the edited model to the same questions."""
    verdicts: dict[Metric, dict[object, tuple[bool, bool]]] = {metric: {} for metric in METRICS}
    for place, (question, old, new) in enumerate(zip(asked, before, after, strict=True)):
        verdict = judge(question, old, new, criterion)
        if verdict is not None:
            key = place if question.case is None else (question.fact, question.case)
            was, now = verdicts[question.metric].get(key, (False, False))
            verdicts[question.metric][key] = (was or verdict[0], now or verdict[1])
    return Metrics(
        criterion, {metric: _tally(found.values()) for metric, found in verdicts.items()}
    )


def judge(
    question: Question, before: Reply, after: Reply, criterion: Criterion = "argmax"
) -> tuple[bool, bool] | None:
    """Whether the base was right and whether the edited model is; None if nothing can be said.

    A question without a wanted answer is right before by definition, and right after if the
    most likely next token has not changed.
    """
    if not question.wanted.labels:
        return True, before.wanted.predicted == after.wanted.predicted
    old, new = _right(question, before, criterion), _right(question, after, criterion)
    return None if old is None or new is None else (old, new)


def _right(question: Question, reply: Reply, criterion: Criterion) -> bool | None:
    if criterion == "argmax":
        return reply.wanted.exact
    if criterion == "first-token":
        return reply.wanted.first
    if criterion == "generated":
        return None if reply.text is None else answered(reply.text, question.accepted)
    if reply.rival is None:
        return None
    return reply.wanted.mean_logprob > reply.rival.mean_logprob


def _tally(verdicts: Iterable[tuple[bool, bool]]) -> Tally:
    found = list(verdicts)
    return Tally(
        asked=len(found),
        right_before=sum(old for old, _ in found),
        right_after=sum(new for _, new in found),
        kept=sum(old and new for old, new in found),
    )


def harmonic_mean(values: Sequence[float]) -> float:
    """The harmonic mean of shares, 0 if one of them is 0."""
    if not all(values):
        return 0.0
    return len(values) / sum(1 / value for value in values)
