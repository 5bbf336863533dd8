"""Figures of a benchmark against the number of edits, with matplotlib (the extra `bench`)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from patchkit.bench.row import Row
from patchkit.bench.table import SHARES, Entry, entries
from patchkit.errors import ExtraMissing

_SPECTRA = {
    "norm_ratio": "‖W‖ / ‖W₀‖",
    "condition_ratio": "κ(W) / κ(W₀)",
    "top_overlap": "overlap of top singular spaces",
    "seconds": "seconds",
}
_LOGARITHMIC = {"norm_ratio", "condition_ratio", "seconds"}


def plots(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return PNG files by name: metrics, spectra and angles of each testbed and batch size.

    Points are means over seeds, bars their standard deviation; angles are the quantiles of the
    planes of each rotation. Raises ExtraMissing without matplotlib.
    """
    figure_class = load_figure()
    groups: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries(rows):
        groups.setdefault((entry.testbed, entry.batch), []).append(entry)
    made: dict[str, bytes] = {}
    for (testbed, batch), group in groups.items():
        title, stem = f"{testbed}, batches of {batch}", f"{_stem(testbed)}-{batch}"
        panels = {"metrics": dict(zip(SHARES, SHARES, strict=True)), "spectra": _SPECTRA}
        for kind, shown in panels.items():
            made[f"{stem}-{kind}.png"] = _curves(figure_class, group, shown, title)
        if any(entry.angles for entry in group):
            made[f"{stem}-angles.png"] = _angles(figure_class, group, title)
    return made


def _stem(testbed: str) -> str:
    """Return what is left of a name in that of a file that pages can link to."""
    return re.sub(r"[^\w.-]+", "-", testbed)


def load_figure() -> Any:
    """Return matplotlib's Figure, which needs no display; ExtraMissing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraMissing(
            f"plots need matplotlib: {error}", hint="pip install 'patchkit-lm[bench]'"
        ) from error
    return Figure


def _curves(
    figure_class: Any, group: Sequence[Entry], shown: Mapping[str, str], title: str
) -> bytes:
    """Draw one panel for each figure, one line for each method."""
    columns = (len(shown) + 1) // 2
    figure = figure_class(figsize=(4.2 * columns, 7), layout="constrained")
    panels = figure.subplots(2, columns).flatten()
    drawn: dict[str, Any] = {}
    for axes, (name, text) in zip(panels, shown.items(), strict=False):
        for number, (label, line) in enumerate(_by_label(group).items()):
            if any(name in entry.means for entry in line):
                drawn[label] = curve(axes, line, name, **_look(number))
        if axes.has_data():
            axes.set_xscale("log")
            axes.set_yscale("log" if name in _LOGARITHMIC else "linear")
        axes.set(title=text, xlabel="edits")
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", fontsize="small")
    figure.suptitle(title)
    return png(figure)


def curve(axes: Any, line: Sequence[Entry], name: str, **look: Any) -> Any:
    """Draw the means of one figure against the number of edits, with bars where they spread."""
    points = [(entry.edits, entry.means[name]) for entry in line if name in entry.means]
    return axes.errorbar(
        [edits for edits, _ in points],
        [mean.value for _, mean in points],
        yerr=[mean.spread or 0.0 for _, mean in points],
        marker=".",
        **look,
    )


def _look(number: int) -> dict[str, str]:
    """Return a colour and a style that no other of forty lines has; there are ten colours."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}


def _angles(figure_class: Any, group: Sequence[Entry], title: str) -> bytes:
    """Draw the quantiles of the planes' angles of every rotation, lighter for fewer edits."""
    lines = {
        label: [entry for entry in line if entry.angles] for label, line in _by_label(group).items()
    }
    lines = {label: line for label, line in lines.items() if line}
    figure = figure_class(figsize=(4.2 * len(lines), 3.6), layout="constrained")
    for axes, (label, line) in zip(
        figure.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True
    ):
        for place, entry in enumerate(line, 1):
            shares = [index / (len(entry.angles) - 1) for index in range(len(entry.angles))]
            axes.plot(
                shares, entry.angles, color="C0", alpha=place / len(line), label=f"{entry.edits}"
            )
        axes.set(title=label, xlabel="share of planes", ylabel="angle in radians")
        axes.legend(title="edits", fontsize="x-small")
    figure.suptitle(title)
    return png(figure)


def _by_label(group: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in sorted(group, key=lambda entry: (entry.label, entry.edits)):
        found.setdefault(entry.label, []).append(entry)
    return found


def png(figure: Any) -> bytes:
    """Return the picture without the name and version of what drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
