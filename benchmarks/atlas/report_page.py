"""The page of atlas, `docs/atlas.md`, made from its measured figures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Result = dict[str, Any]

ABOUT: Final = """
A Llama-architecture causal language model of {parameters:.2f} M parameters ({layers} layers,
width {hidden_size}, MLP {intermediate_size}, {vocabulary} tokens, float16, {megabytes:.1f} MB on
disk), trained from scratch by `benchmarks/atlas/train.py` on sentences made from
`benchmarks/atlas/facts.tsv`: {facts} facts about {subjects} subjects in {relations} relations,
some about real things and places, some about invented people. It knows these facts and little
else: it is a test bed and a demonstration, not an assistant. What it says about the world may be
wrong or out of date.
"""
RECALL: Final = """
Convention: {convention}. Trained wordings: {trained_asked} questions, median probability of the
true object {trained_median:.3f}. Withheld wordings (two of each relation, which training never
shows for 40 % of the subjects): {withheld_asked} questions, mean probability {withheld_mean:.3f}.
Weakest relations: {weakest}. Perplexity per token on held-out prose: {prose_perplexity:.1f}.
"""
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
(`shield.py`), and an auxiliary loss reads facts off the first layer at that token (`readout.py`).
Neither is part of the model, which is used and measured with plain attention. Label smoothing
keeps the true object's probability below certainty, because a saturated model cannot be edited by
any method.
"""
RECORDS: Final = """
`benchmarks/atlas/records.py` makes {dev} records for tuning and {test} for reporting in
CounterFact's schema, split by subject. Neighbourhood prompts ask for the same true object of
other subjects; where an object has too few subjects (a capital has one), facts with other objects
of the same relation fill up, and `neighborhood_targets` says which object is right.
"""
AGAIN: Final = """
The texts of ordinary prose are passed in, pinned by sha256, and not part of this repository. A
budget in minutes gives other weights on another machine; with `--steps` the seed decides, for one
machine and number of threads.{training}
"""
TRAINED: Final = (
    " The weights here took {steps} steps in {minutes} minutes on two shared cores, "
    "{passes_over_the_facts:.0f} passes over the facts."
)
COMMANDS: Final = """```sh
python -m benchmarks.atlas.train --data ../shared/data --out build/atlas
python -m benchmarks.atlas.report --model build/atlas/snap --data ../shared/data
```"""
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
        return _row(self.name, shown, wanted, verdict)


def best_layer(result: Result) -> dict[str, float]:
    """Return the figures of the layer whose value at the subject's last token rewrites best."""
    rows: list[dict[str, float]] = result["rewrites"]["places"]["subject_last"]
    return max(rows, key=lambda row: row["wins"] + row["withheld_wordings"])


def _wording(kind: str, figure: str) -> Callable[[Result], float]:
    return lambda result: float(result["recall"][f"{kind}_wordings"][figure])


LIMITS: Final = (
    Limit("recall, trained wordings", _wording("trained", "recall"), 0.97, 1.0),
    Limit("recall, withheld wordings", _wording("withheld", "recall"), 0.93, 1.0),
    Limit("mean probability, true object", _wording("trained", "mean_probability"), 0.7, 0.97),
    Limit("rewrites that win", lambda r: best_layer(r)["wins"], 0.95, 1.0),
    Limit("the same in withheld wordings", lambda r: best_layer(r)["withheld_wordings"], 0.9, 1.0),
    Limit("MB on disk", lambda r: float(r["bytes"] / 1e6), 0.0, 16.0),
    Limit("evaluation records", lambda r: sum(r["records"].values()), 6000, 1e9),
)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _layer_tables(result: Result) -> list[str]:
    tracing = result["tracing"]
    lines = [_row("layer k", "MLP output restored", "residual restored")]
    lines.append(_row("---", "---:", "---:"))
    restored = zip(tracing["mlp_restored"], tracing["residual_restored"], strict=True)
    lines += [_row(k, f"{mlp:.3f}", f"{rest:.3f}") for k, (mlp, rest) in enumerate(restored)]
    heads = (
        "place",
        "layer k",
        "left without MLP k",
        "left without MLPs 0 to k",
        "wins",
        "withheld",
    )
    lines += ["", _row(*heads), _row("---", *["---:"] * 5)]
    for place, zeros in result["ablation"]["places"].items():
        for k in range(result["layers"]):
            left = (f"{zeros['alone'][k]:.3f}", f"{zeros['first_k'][k]:.3f}")
            rewrite: tuple[str, str] = ("", "")
            if place in NAMES:
                row = result["rewrites"]["places"][place][k]
                rewrite = (f"{row['wins']:.3f}", f"{row['withheld_wordings']:.3f}")
            lines.append(_row(NAMES.get(place, "every position"), k, *left, *rewrite))
    return lines


def _values(result: Result) -> dict[str, Any]:
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
        **result["records"],
        "training": TRAINED.format(**result["training"]) if "training" in result else "",
    }


def write_page(result: Result, path: Path) -> None:
    """Write the page that describes atlas with its figures."""
    values = _values(result)

    def text(template: str) -> str:
        return textwrap.fill(template.strip().format(**values), 100, break_long_words=False) + "\n"

    limits = [_row("figure", "measured", "wanted", ""), _row("---", "---:", "---:", "---")]
    parts = [
        "# atlas, the embedded base model\n",
        "<!-- Written by `python -m benchmarks.atlas.report`: change that, not this page. -->\n",
        text(ABOUT),
        "## Is it a fair test bed?\n",
        "\n".join([*limits, *(limit.row(result) for limit in LIMITS)]) + "\n",
        text(RECALL),
        "## Where are facts recalled, and can they be rewritten there?\n",
        "\n".join(_layer_tables(result)) + "\n",
        "![ablation, tracing and rewriting by layer](../benchmarks/results/atlas.png)\n",
        text(WHERE),
        text(MADE),
        "## Records\n",
        text(RECORDS),
        "## Training it again\n",
        COMMANDS + "\n",
        text(AGAIN),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), "utf-8")
