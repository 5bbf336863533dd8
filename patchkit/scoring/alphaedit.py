"""The figures of AlphaEdit's tables, as its code and MEMIT's before it compute them.

*Success* compares probabilities: the mean log-probability per token of the wanted answer against
that of its rival. *Accuracy* wants every token to be the most likely one; *tokens* counts those
that are, which is what the zsRE tables show. All are averaged within a record, then over records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchkit.scoring.figures import Figure, Judge, Row, averaged, token_accuracy
from patchkit.scoring.metrics import harmonic_mean
from patchkit.scoring.questions import Metric, Question, Reply

METRICS: tuple[Metric, ...] = ("efficacy", "paraphrase", "neighborhood")


def alphaedit(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Success by metric, the harmonic mean of the three (`score`), accuracy and token accuracy."""
    found = [
        averaged(f"{metric}_{kind}", [row for row in rows if row[0].metric == metric], judge)
        for kind, judge in _JUDGES.items()
        for metric in METRICS
    ]
    return (*found[: len(METRICS)], _score(found[: len(METRICS)]), *found[len(METRICS) :])


def success(question: Question, reply: Reply) -> float | None:
    """1 where the wanted answer is more probable per token than its rival."""
    if reply.rival is None or not question.wanted.labels:
        return None
    return float(reply.wanted.mean_logprob > reply.rival.mean_logprob)


def accuracy(question: Question, reply: Reply) -> float | None:
    """1 where every wanted token is the most likely one."""
    return float(reply.wanted.exact) if question.wanted.labels else None


_JUDGES: Mapping[str, Judge] = {
    "success": success,
    "accuracy": accuracy,
    "tokens": token_accuracy,
}


def _score(successes: Sequence[Figure]) -> Figure:
    base, patched = (
        None if None in values else harmonic_mean([value for value in values if value is not None])
        for values in ([f.base for f in successes], [f.patched for f in successes])
    )
    return Figure("score", base, patched, min(figure.count for figure in successes))
