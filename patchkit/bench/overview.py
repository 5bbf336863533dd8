"""Scores side by side: a line for each method, a column for each number of edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from patchkit.bench.row import Row
from patchkit.bench.table import Entry, count, entries, line, shown


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
    every = {(entry.label, entry.edits): entry for entry in entries(rows)}
    methods = Counter(edits for _, edits in every)
    columns = sorted(edits for edits, several in methods.items() if several > 1)
    if not columns:
        return ""
    first = min(row.seed for row in rows)
    drawn = {
        (row.label, row.edits): row.score
        for row in rows
        if row.seed == first and row.score is not None
    }
    best = {
        edits: max((s for (_, at), s in drawn.items() if at == edits), default=0.0)
        for edits in columns
    }

    def rank(label: str) -> tuple[list[float], str]:
        return [-drawn.get((label, edits), -1.0) for edits in reversed(columns)], label

    lines = [
        f"**{testbed}, score after so many edits in batches of {batch}**",
        "",
        line(["method", *(count(edits, "edit") for edits in columns)]),
        line(["---", *["---:"] * len(columns)]),
    ]
    for label in sorted({label for label, edits in every if edits in columns}, key=rank):
        places = [(label, edits) for edits in columns]
        cells = [_cell(every.get(at), drawn.get(at), best[at[1]]) for at in places]
        lines.append(line([label, *cells]))
    return "\n".join(lines) + "\n"


def _cell(entry: Entry | None, first: float | None, best: float) -> str:
    """Return the score on the first draw, and how all draws spread."""
    if entry is None:
        return "–"
    mean = entry.means.get("score")
    if mean is None:
        return "failed"
    drawn = "–" if first is None else f"{first:.3f}"
    if drawn == f"{best:.3f}":
        drawn = f"**{drawn}**"
    return drawn if first is not None and mean.spread is None else f"{drawn} ({shown(mean, 3)})"
