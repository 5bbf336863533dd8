"""The figures of EasyEdit, and of the papers that measure with it.

`rewrite_acc`, `rephrase_acc` and `portability` are shares of the wanted answer's tokens that are
the most likely ones: part of an answer earns part of the credit. `locality` is the share of the
tokens predicted in the wanted answer's place that the edit left as they were, right or wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchkit.scoring.figures import Figure, Row, averaged, mean_of_means, token_accuracy
from patchkit.scoring.questions import Metric, Reply

LOCAL: Mapping[Metric, str] = {"neighborhood": "neighborhood", "same_subject": "same_subject"}


def easyedit(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Accuracy of edits and rephrasings, then locality and portability, overall and by group."""
    local = [row for row in rows if row[0].metric in LOCAL]
    ported = [row for row in rows if row[0].metric == "portability"]
    return (
        averaged("rewrite_acc", _of("efficacy", rows), token_accuracy),
        averaged("rephrase_acc", _of("paraphrase", rows), token_accuracy),
        locality("locality", local),
        *(locality(f"locality/{name}", found) for name, found in _groups(local).items()),
        averaged("portability", ported, token_accuracy),
        *(
            averaged(f"portability/{name}", found, token_accuracy)
            for name, found in _groups(ported).items()
        ),
    )


def locality(name: str, rows: Sequence[Row]) -> Figure:
    """The mean over facts of the share of predictions that are the base's own."""
    values = [(question.fact, unchanged(old, new)) for question, old, new in rows]
    return Figure(name, None, mean_of_means(values), len({fact for fact, _ in values}))


def unchanged(before: Reply, after: Reply) -> float:
    """The share of predicted tokens that are the same before and after."""
    old, new = before.wanted.predicted, after.wanted.predicted
    return sum(a == b for a, b in zip(old, new, strict=True)) / len(old)


def _of(metric: Metric, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row[0].metric == metric]


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the name of their group, in alphabetical order; those without one by their metric."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = row[0].group or LOCAL.get(row[0].metric)
        if name is not None:
            found.setdefault(name, []).append(row)
    return dict(sorted(found.items()))
