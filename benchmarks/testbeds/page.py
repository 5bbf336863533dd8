"""What the pages of the test beds have in common: tables of figures, and words around them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from patchkit.bench.table import line

Result = dict[str, Any]

WHERE: Final = """
*Recall left* is measured on {ablation_n} facts with the output of MLPs set to zero at every
position, at the subject's last token only, or at the prompt's end only. *Restored* is the mean
probability of the true object with noise of three standard deviations on the embeddings of the
subject's tokens and one site at the subject's last token put back to its clean value (clean
{clean:.3f}, corrupted {corrupted:.3f}). *Wins* is the share of {rewrites_n} random requests in
which a new object of the same relation becomes the argmax when the MLP's output at that place is
optimised with its norm kept; *withheld*: the same value, put in where the question is asked in
wordings that training never showed for this subject.
"""
MADE: Final = """
Left alone, a model of this size gathers a name at the prompt's end and looks the fact up there,
where the wording is already known. Larger models recall at the subject's last token, and editors
write there, so two things in training push recall to that place: in 90 % of the rows tokens
outside a name see nothing of it in the first layer and only its last token in later layers
(`benchmarks/testbeds/shield.py`), and an auxiliary loss reads facts off the first layer at that
token (`readout.py`). Neither is part of the model, which is used and measured with plain attention.
Label smoothing keeps the true object's probability below certainty, because a saturated model
cannot be edited by any method.
"""
NAMES: Final = {"subject_last": "subject's last token", "prompt_end": "prompt's end"}


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that a fair test bed has to reach."""

    name: str
    figure: Callable[[Result], float]
    low: float
    high: float

    def row(self, result: Result) -> str:
        """Return the table row of this figure."""
        value = self.figure(result)
        wanted = f"{self.low:g} to {self.high:g}" if self.high < 1e9 else f"at least {self.low:g}"
        verdict = "met" if self.low <= value <= self.high else "**missed**"
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        return row(self.name, shown, wanted, verdict)


def best_layer(result: Result) -> dict[str, float]:
    """Return the figures of the layer whose value at the subject's last token rewrites best."""
    rows: list[dict[str, float]] = result["rewrites"]["places"]["subject_last"]
    return max(rows, key=lambda figures: figures["wins"] + figures["withheld_wordings"])


def _wording(kind: str, figure: str) -> Callable[[Result], float]:
    return lambda result: float(result["recall"][f"{kind}_wordings"][figure])


FAIR: Final = (
    Limit("recall, trained wordings", _wording("trained", "recall"), 0.97, 1.0),
    Limit("recall, withheld wordings", _wording("withheld", "recall"), 0.93, 1.0),
    Limit("mean probability, true object", _wording("trained", "mean_probability"), 0.7, 0.97),
    Limit("rewrites that win", lambda r: best_layer(r)["wins"], 0.95, 1.0),
    Limit("the same in withheld wordings", lambda r: best_layer(r)["withheld_wordings"], 0.9, 1.0),
)


def row(*cells: object) -> str:
    """Return one row of a table."""
    return line([str(cell) for cell in cells])


def limits_table(limits: Sequence[Limit], result: Result) -> str:
    """Return the table of the figures that a fair test bed has to reach."""
    head = [row("figure", "measured", "wanted", ""), row("---", "---:", "---:", "---")]
    return "\n".join([*head, *(limit.row(result) for limit in limits)]) + "\n"


def layer_tables(result: Result) -> str:
    """Return the tables of tracing, and of ablation and rewriting, by layer."""
    tracing = result["tracing"]
    lines = [row("layer k", "MLP output restored", "residual restored")]
    lines.append(row("---", "---:", "---:"))
    restored = zip(tracing["mlp_restored"], tracing["residual_restored"], strict=True)
    lines += [row(k, f"{mlp:.3f}", f"{rest:.3f}") for k, (mlp, rest) in enumerate(restored)]
    heads = (
        "place",
        "layer k",
        "left without MLP k",
        "left without MLPs 0 to k",
        "wins",
        "withheld",
    )
    lines += ["", row(*heads), row("---", *["---:"] * 5)]
    for place, zeros in result["ablation"]["places"].items():
        for k in range(result["layers"]):
            left = (f"{zeros['alone'][k]:.3f}", f"{zeros['first_k'][k]:.3f}")
            rewrite: tuple[str, str] = ("", "")
            if place in NAMES:
                figures = result["rewrites"]["places"][place][k]
                rewrite = (f"{figures['wins']:.3f}", f"{figures['withheld_wordings']:.3f}")
            lines.append(row(NAMES.get(place, "every position"), k, *left, *rewrite))
    return "\n".join(lines) + "\n"


def values_of(result: Result) -> dict[str, Any]:
    """Return the figures under the names that the pages' texts use."""
    recall = result["recall"]
    weakest = sorted(recall["by_relation"].items(), key=lambda item: item[1])[:5]
    return {
        **result,
        "parameters": result["parameters"] / 1e6,
        "megabytes": result["bytes"] / 1e6,
        "trained_asked": recall["trained_wordings"]["asked"],
        "trained_median": recall["trained_wordings"]["median_probability"],
        "withheld_asked": recall["withheld_wordings"]["asked"],
        "withheld_mean": recall["withheld_wordings"]["mean_probability"],
        "weakest": ", ".join(f"{name} {value:.3f}" for name, value in weakest),
        "ablation_n": result["ablation"]["n"],
        "rewrites_n": result["rewrites"]["n"],
        "clean": result["tracing"]["clean"],
        "corrupted": result["tracing"]["corrupted"],
    }


def text(template: str, values: dict[str, Any]) -> str:
    """Return a paragraph with its figures filled in, wrapped."""
    return textwrap.fill(template.strip().format(**values), 100, break_long_words=False) + "\n"


def write(path: Path, parts: Sequence[str]) -> None:
    """Write a page of parts with an empty line between them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), "utf-8")
