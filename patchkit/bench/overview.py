"""Scores side by side: a line for each method, a column for each number of edits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from patchkit.bench.row import Row
from patchkit.bench.table import count, line


def overview(rows: Sequence[Row]) -> str:
    """Return a table in Markdown for each testbed and batch size, of what several methods did.

    A cell is the score on the first draw, the highest of a column in bold; with several seeds, mean
    and standard deviation over them stand behind it. Draws differ by more than methods do, so only
    figures of the same draw compare.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.testbed, row.batch), []).append(row)
    parts = [_table(*place, group) for place, group in sorted(groups.items())]
    return "\n".join(part for part in parts if part)


def _table(testbed: str, batch: int, rows: Sequence[Row]) -> str:
    first = min(row.seed for row in rows)
    columns = sorted({row.edits for row in rows})
    columns = [edits for edits in columns if len({r.label for r in rows if r.edits == edits}) > 1]
    if not columns:
        return ""
    drawn = [row for row in rows if row.seed == first and row.score is not None]
    scores = {(row.label, row.edits): row.score or 0.0 for row in drawn}
    best = {
        edits: max((score for (_, at), score in scores.items() if at == edits), default=None)
        for edits in columns
    }

    def rank(label: str) -> tuple[list[float], str]:
        return [-scores.get((label, edits), -1.0) for edits in reversed(columns)], label

    labels = sorted({row.label for row in rows if row.edits in columns}, key=rank)
    lines = [
        f"**{testbed}, score after so many edits in batches of {batch}**",
        "",
        line(["method", *(count(edits, "edit") for edits in columns)]),
        line(["---", *["---:"] * len(columns)]),
    ]
    for label in labels:
        mine = [row for row in rows if row.label == label]
        cells = [
            _cell([r for r in mine if r.edits == edits], first, best[edits]) for edits in columns
        ]
        lines.append(line([label, *cells]))
    return "\n".join(lines) + "\n"


def _cell(rows: Sequence[Row], first: int, best: float | None) -> str:
    """Return the score on the draw `first`, and how all draws spread."""
    if not rows:
        return "–"
    scores = [row.score for row in rows if row.score is not None]
    if not scores:
        return "failed"
    shown = next((f"{r.score:.3f}" for r in rows if r.seed == first and r.score is not None), "–")
    if best is not None and shown == f"{best:.3f}":
        shown = f"**{shown}**"
    if len(scores) > 1:
        return f"{shown} ({statistics.fmean(scores):.3f} ± {statistics.stdev(scores):.3f})"
    return shown if rows[0].seed == first else f"{shown} ({scores[0]:.3f})"
