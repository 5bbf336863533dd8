"""The figure of the README: what a sequence of edits leaves, and how long a matrix grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from patchkit.bench import Row, entries
from patchkit.bench.plots import curve, load_figure, png

TESTBED: Final = "atlas"
BATCH: Final = 100
MOST: Final = 1000  # edits, as far as all of them went
SHOWN: Final[dict[str, dict[str, Any]]] = {  # looks by label
    "rotation": {"color": "C3", "linewidth": 2.4, "zorder": 3},
    "memit": {"color": "C0"},
    "memit+history": {"color": "C9"},
    "rect": {"color": "C1"},
    "alphaedit": {"color": "C2"},
}
PANELS: Final = {"score": "score", "norm_ratio": "‖W‖ / ‖W₀‖, edited matrix"}


def figure(rows: Sequence[Row]) -> bytes:
    """Return the PNG of both panels; points are means over draws, bars standard deviations."""
    mine = [r for r in rows if (r.testbed, r.batch) == (TESTBED, BATCH) and r.edits <= MOST]
    means = sorted(entries(mine), key=lambda entry: entry.edits)
    drawing = load_figure()(figsize=(8.4, 3.2), layout="constrained")
    for axes, (name, title) in zip(drawing.subplots(1, 2), PANELS.items(), strict=True):
        for label, look in SHOWN.items():
            line = [entry for entry in means if entry.label == label]
            curve(axes, line, name, label=label, **{"linewidth": 1.2, **look})
        axes.set(title=title, xlabel="edits in sequence")
        axes.grid(alpha=0.3)
    drawing.axes[0].legend(fontsize="small")
    return png(drawing)
