"""The same answers in the figures of three conventions: our own, AlphaEdit's, EasyEdit's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from patchkit.scoring.alphaedit import alphaedit
from patchkit.scoring.easyedit import easyedit
from patchkit.scoring.figures import Figure
from patchkit.scoring.metrics import Criterion, Metrics
from patchkit.scoring.questions import METRICS, Question, Reply

Convention = Literal["patchkit", "alphaedit", "easyedit"]
CONVENTIONS: tuple[Convention, ...] = ("patchkit", "alphaedit", "easyedit")
_SUFFIXES: Mapping[Criterion, str] = {"argmax": "", "generated": "_generated"}


def by_convention(
    asked: Sequence[Question],
    before: Sequence[Reply],
    after: Sequence[Reply],
    metrics: Mapping[Criterion, Metrics],
    written: Sequence[Figure] = (),
) -> Mapping[Convention, tuple[Figure, ...]]:
    """The figures of each convention; `written` are those of generated texts."""
    rows = list(zip(asked, before, after, strict=True))
    fluency = tuple(figure for figure in written if figure.name == "fluency")
    return {
        "patchkit": (*_own(metrics), *written),
        "alphaedit": (*alphaedit(rows), *written),
        "easyedit": (*easyedit(rows), *fluency),
    }


def _own(metrics: Mapping[Criterion, Metrics]) -> Iterator[Figure]:
    """Shares right after for what should change, kept shares for what should stay, the score."""
    for criterion, suffix in _SUFFIXES.items():
        if criterion in metrics:
            found = metrics[criterion]
            for name in METRICS:
                tally = found.tallies[name]
                yield Figure(name + suffix, tally.before, found.value(name), tally.asked)
            asked = sum(tally.asked for tally in found.tallies.values())
            yield Figure("score" + suffix, None, found.score, asked)
