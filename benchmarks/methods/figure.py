"""The figure of the README: what a sequence of edits leaves, and how long a matrix grows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from patchkit.bench import Row, entries

TESTBED: Final = "atlas"
BATCH: Final = 100
MOST: Final = 1000  # edits, as far as all of them went
SHOWN: Final = {  # by label, so that colours stay where a method is left out
    "rotation": "C3",
    "memit": "C0",
    "memit+history": "C9",
    "rect": "C1",
    "alphaedit": "C2",
}
PANELS: Final = {"score": "score", "norm_ratio": "‖W‖ / ‖W₀‖, edited matrix"}


def figure(rows: Sequence[Row]) -> bytes:
    """Return the PNG of both panels; points are means over draws, bars standard deviations."""
    from matplotlib.figure import Figure  # of the extra bench

    mine = [r for r in rows if (r.testbed, r.batch) == (TESTBED, BATCH) and r.edits <= MOST]
    means = sorted(entries(mine), key=lambda entry: entry.edits)
    drawing = Figure(figsize=(8.4, 3.2), layout="constrained")
    for axes, (name, title) in zip(drawing.subplots(1, 2), PANELS.items(), strict=True):
        for label, colour in SHOWN.items():
            points = [e for e in means if e.label == label and name in e.means]
            axes.errorbar(
                [point.edits for point in points],
                [point.means[name].value for point in points],
                yerr=[point.means[name].spread or 0.0 for point in points],
                color=colour,
                marker=".",
                linewidth=2.4 if label == "rotation" else 1.2,
                zorder=3 if label == "rotation" else 2,
                label=label,
            )
        axes.set(title=title, xlabel="edits in sequence")
        axes.grid(alpha=0.3)
    drawing.axes[0].legend(fontsize="small")
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
