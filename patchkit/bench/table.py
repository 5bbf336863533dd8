"""Rows of a benchmark as a table: mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from patchkit.bench.row import Row

SHARES = ("efficacy", "paraphrase", "neighborhood", "same_subject", "retention", "score")
FIGURES = (
    *SHARES, "norm_ratio", "condition_ratio", "stored_norm_ratio", "stored_condition_ratio",
    "orthogonality", "top_overlap", "seconds", "facts_per_second", "patch_bytes",
)  # fmt: skip
_HEADS = ("method", *SHARES, "‖W‖", "κ", "facts/s", "KB")


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over seeds and standard deviation (None with one seed) of a figure."""

    value: float
    spread: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One method after so many edits, over all its seeds; `failed` counts those without figures."""

    testbed: str
    batch: int
    edits: int
    label: str
    seeds: int
    failed: int
    means: dict[str, Mean]
    angles: tuple[float, ...]


def entries(rows: Sequence[Row]) -> tuple[Entry, ...]:
    """Gather rows over seeds, ordered by testbed, batch, edits, and the score downwards."""
    groups: dict[tuple[str, int, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.testbed, row.batch, row.edits, row.label), []).append(row)
    made = [_entry(key, group) for key, group in groups.items()]
    return tuple(sorted(made, key=lambda e: (e.testbed, e.batch, e.edits, -_score(e), e.label)))


def _entry(key: tuple[str, int, int, str], group: Sequence[Row]) -> Entry:
    testbed, batch, edits, label = key
    good = [row for row in group if row.failed is None]
    means: dict[str, Mean] = {}
    for name in FIGURES:
        values = [float(value) for row in good if (value := getattr(row, name)) is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            means[name] = Mean(statistics.fmean(values), spread)
    turned = [row.angles for row in good if row.angles]
    angles = tuple(statistics.fmean(each) for each in zip(*turned, strict=True))
    return Entry(testbed, batch, edits, label, len(group), len(group) - len(good), means, angles)


def _score(entry: Entry) -> float:
    return entry.means["score"].value if "score" in entry.means else -1.0


def markdown(rows: Sequence[Row]) -> str:
    """Return a table in Markdown for each testbed, batch size and number of edits."""
    parts: list[str] = []
    place: tuple[str, int, int] | None = None
    for entry in entries(rows):
        if place != (entry.testbed, entry.batch, entry.edits):
            place = (entry.testbed, entry.batch, entry.edits)
            parts += [
                "",
                f"**{entry.testbed}, {count(entry.edits, 'edit')} in batches of {entry.batch}**",
            ]
            parts += ["", line(_HEADS), line(["---", *["---:"] * (len(_HEADS) - 1)])]
        parts.append(line(_cells(entry)))
    return "\n".join(parts[1:]) + "\n" if parts else ""


def _cells(entry: Entry) -> list[str]:
    name = entry.label + (f" ({entry.seeds} seeds)" if entry.seeds > 1 else "")
    if entry.failed:
        name += f", {entry.failed} failed"
    kilobytes = entry.means.get("patch_bytes")
    return [
        name,
        *(shown(entry.means.get(figure), 3) for figure in SHARES),
        shown(entry.means.get("norm_ratio"), 4),
        shown(entry.means.get("condition_ratio"), 4),
        shown(entry.means.get("facts_per_second"), 2),
        "–" if kilobytes is None else f"{kilobytes.value / 1024:,.0f}",
    ]


def shown(mean: Mean | None, digits: int) -> str:
    """Return a mean and its spread, or a dash for none."""
    if mean is None:
        return "–"
    spread = "" if mean.spread is None else f" ± {mean.spread:.{digits}f}"
    return f"{mean.value:.{digits}f}{spread}"


def count(number: int, unit: str) -> str:
    """Return a number with its unit."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def line(cells: Sequence[str]) -> str:
    """Return a line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"
