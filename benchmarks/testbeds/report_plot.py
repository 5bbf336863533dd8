"""The plot of a test bed: where facts are recalled, and where they can be rewritten."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

STYLES: Final = {"everywhere": "^-", "subject_last": "o-", "prompt_end": "s--"}
LABELS: Final = {
    "everywhere": "every position",
    "subject_last": "subject's last token",
    "prompt_end": "prompt's end",
}


def _read_log(path: Path) -> tuple[list[float], list[float]]:
    with open(path, newline="") as file:
        rows = [(float(row[1]) / 60, float(row[2])) for row in csv.reader(file)]
    return [minutes for minutes, _ in rows], [loss for _, loss in rows]


def write_plot(result: dict[str, Any], log: Path | None, path: Path) -> None:
    """Draw ablation, tracing and rewriting by layer, and the training loss if its log is given."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4 if log else 3, figsize=(15 if log else 11.5, 3.5))
    layers, tracing = range(result["layers"]), result["tracing"]
    for place, figures in result["ablation"]["places"].items():
        axes[0].plot(layers, figures["first_k"], STYLES[place], label=LABELS[place])
    axes[0].set(title="recall with MLPs 0 to k at zero", xlabel="k")
    axes[1].plot(layers, tracing["mlp_restored"], "o-", label="MLP output")
    axes[1].plot(layers, tracing["residual_restored"], "s--", label="residual behind the layer")
    axes[1].axhline(tracing["clean"], color="gray", label="clean")
    axes[1].axhline(tracing["corrupted"], color="gray", ls=":", label="subject corrupted")
    axes[1].set(title="probability of the true object,\nsubject's last token restored")
    for place, rows in result["rewrites"]["places"].items():
        withheld = [row["withheld_wordings"] for row in rows]
        axes[2].plot(layers, withheld, STYLES[place], label=LABELS[place])
    axes[2].set(title="new object wins in withheld wordings,\nvalue of unchanged norm")
    for axis in axes[:3]:
        axis.set_xticks(list(layers))
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("k" if axis is axes[0] else "layer")
        axis.legend(fontsize=7)
    if log:
        axes[3].plot(*_read_log(log))
        axes[3].set(title="training loss", xlabel="minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
