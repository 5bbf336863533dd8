"""Figures of a published convention: a name, a value before and after, and over how many facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from patchkit.scoring.questions import Question, Reply

Row = tuple[Question, Reply, Reply]
"""A question with the base's reply and the patched model's."""

Judge = Callable[[Question, Reply], float | None]
"""What one reply is worth; None where it cannot be said."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the base and of the patched model, None where it was not measured.

    `count` is the number of facts behind it (of questions, in patchkit's own convention).
    """

    name: str
    base: float | None
    patched: float | None
    count: int


def averaged(name: str, rows: Iterable[Row], judge: Judge) -> Figure:
    """The mean over facts of the mean over each fact's questions."""
    base: list[tuple[int | None, float]] = []
    patched: list[tuple[int | None, float]] = []
    for question, before, after in rows:
        old, new = judge(question, before), judge(question, after)
        if old is not None and new is not None:
            base.append((question.fact, old))
            patched.append((question.fact, new))
    facts = {fact for fact, _ in base}
    return Figure(name, mean_of_means(base), mean_of_means(patched), len(facts))


def mean_of_means(values: Iterable[tuple[int | None, float]]) -> float | None:
    """The mean over groups of the mean within each; None without values."""
    groups: dict[int | None, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    means = [sum(found) / len(found) for found in groups.values()]
    return sum(means) / len(means) if means else None


def token_accuracy(question: Question, reply: Reply) -> float | None:
    """The share of wanted tokens that are the most likely ones, each given those before it."""
    wanted, predicted = reply.wanted.tokens, reply.wanted.predicted
    if not question.wanted.labels:
        return None
    return sum(a == b for a, b in zip(wanted, predicted, strict=True)) / len(wanted)
