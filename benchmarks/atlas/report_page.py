"""The page of atlas, `docs/atlas.md`, made from its measured figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.testbeds.page import (
    FAIR,
    MADE,
    WHERE,
    Limit,
    layer_tables,
    limits_table,
    text,
    values_of,
    write,
)

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
LIMITS: Final = (
    *FAIR,
    Limit("MB on disk", lambda r: float(r["bytes"] / 1e6), 0.0, 16.0),
    Limit("evaluation records", lambda r: sum(r["records"].values()), 6000, 1e9),
)


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the page that describes atlas with its figures."""
    trained = TRAINED.format(**result["training"]) if "training" in result else ""
    values = {**values_of(result), **result["records"], "training": trained}
    parts = [
        "# atlas, the embedded base model\n",
        "<!-- Written by `python -m benchmarks.atlas.report`: change that, not this page. -->\n",
        text(ABOUT, values),
        "## Is it a fair test bed?\n",
        limits_table(LIMITS, result),
        text(RECALL, values),
        "## Where are facts recalled, and can they be rewritten there?\n",
        layer_tables(result),
        "![ablation, tracing and rewriting by layer](../benchmarks/results/atlas.png)\n",
        text(WHERE, values),
        text(MADE, values),
        "## Records\n",
        text(RECORDS, values),
        "## Training it again\n",
        COMMANDS + "\n",
        text(AGAIN, values),
    ]
    write(path, parts)
