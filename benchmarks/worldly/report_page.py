"""The page of worldly, `docs/worldly.md`, made from its measured figures."""

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
    row,
    text,
    values_of,
    write,
)

ABOUT: Final = """
A Llama-architecture causal language model that knows ParaRel's facts, so that CounterFact's
records, which ask for the same facts, are real edits for it. It is trained from scratch by
`benchmarks/worldly/train.py` on sentences made from ParaRel's triples and on ordinary prose, with
GPT-2's tokenizer. Neither the weights nor the data are part of this repository: the data are passed
in with `--data` and pinned by sha256, and the model is written where `--out` says.
"""
MEASURED: Final = """
Measured here: the preset `{preset}`, {parameters:.2f} M parameters ({layers} layers, width
{hidden_size}, MLP {intermediate_size}, {vocabulary} tokens, float16, {megabytes:.1f} MB on disk),
taught {facts} facts about {subjects} subjects in {relations} relations
({relation_names}).{training}
"""
TRAINED: Final = (
    " The weights took {steps} steps in {minutes} minutes on one core that other work used too, "
    "{passes_over_the_facts:.0f} passes over the facts. {note}"
)
KNOWN: Final = """
*Taught*: the fact is among ParaRel's triples that training says. *Argmax*: all tokens of the true
object are the argmax, teacher-forced. *Preferred*: the true object has a lower mean loss per token
than the new one, as CounterFact's authors compare them. Paraphrases, which put another sentence in
front, and neighbours are counted by argmax. ParaRel states {neighborhood_taught:.0%} of the
neighbours of the relations taught; the rest can only be guessed, and so can the records of other
relations. ParaRel's triples as handed over have no facts of relation P641, of which CounterFact has
records, and clozes for which the triples give several objects are not taught. Of CounterFact, the
sentences use the wordings and nothing else: not which subject a record asks for, nor what it wants
there.
"""
RECALL: Final = """
Convention: {convention}. Trained wordings: {trained_asked} questions drawn at random, median
probability of the true object {trained_median:.3f}. Withheld wordings (one or two of each relation,
which training never shows for 40 % of the subjects): {withheld_asked} questions, mean probability
{withheld_mean:.3f}. Weakest relations: {weakest}. Perplexity per token on held-out prose:
{prose_perplexity:.1f}.
"""
TOKENS: Final = """
The preset `small` keeps those of GPT-2's tokens that its sentences and CounterFact's prompts about
its relations are cut into, all tokens of one byte, and every part that a kept token is merged from,
numbered anew. A text whose tokens are all kept is cut exactly as GPT-2 cuts it (with
`add_prefix_space`); other texts are cut finer and lose nothing. The preset `full` keeps all 50257
tokens.
"""
RECORDS: Final = """
`benchmarks/worldly/records.py` writes the records that a model knows by argmax, split by subject:
{counterfact_dev} and {counterfact_test} of CounterFact for tuning and reporting (`source:
counterfact`, with the subject's other facts as `same_subject_prompts`, and with neighbours from
ParaRel in the place of those that the model does not know), {pararel_dev} and
{pararel_test} made from ParaRel about subjects that CounterFact's dev records do not ask for
(`source: pararel`), and {retention} prompts for retention about subjects that no record edits. A
recipe of `patchkit bench` names them `counterfact_{{split}}.json` and `retention.json`. Beside each
of the four stands a text of what training says about all subjects that stand nowhere in it, nor in
the prompts for retention (about 7,200 and 5,800 of 8,666 for CounterFact's, 1,900 and 50 for
ParaRel's): `corpus = "counterfact_{{split}}.txt"`.
"""
AGAIN: Final = """
The preset `full` (all relations, 55 M parameters, bf16 autocast) is meant for ten minutes on a GPU;
it has not been run, because none was there. A run is taken up again where it stopped if the command
is repeated. With `--steps` the seed decides the weights, for one machine and number of threads,
also when the run was interrupted; with `--minutes` the speed of the machine has a say too.
"""
COMMANDS: Final = """```sh
python -m benchmarks.worldly.train --out build/worldly {budget}
python -m benchmarks.worldly.train --out build/worldly-full --preset full --device cuda
python -m benchmarks.worldly.report --model build/worldly/snap --log build/worldly/log.csv
python -m benchmarks.worldly.records --model build/worldly/snap --out build/worldly/records
```"""
LIMITS: Final = (
    Limit(
        "CounterFact known, relations taught",
        lambda r: float(r["counterfact"]["relations_taught"]["argmax"]),
        0.9,
        1.0,
    ),
    *FAIR,
)
LEFT: Final = """
Without the first MLP at the subject's last token {left:.0%} of the facts are still recalled: with
plain attention this model can gather a name at the prompt's end too. But that place alone
brings a corrupted subject's facts back to {restored:.3f}, and a value put in there wins for
{wins:.0%} of the requests.
"""
SPREAD: Final = """
From one training to the next of the same preset these figures differ by as much as here; the first
row is the model above.
"""
SCOPES: Final = {"all": "all dev records", "relations_taught": "relations taught"}


def _known_table(result: dict[str, Any]) -> str:
    figures = ("taught", "argmax", "preferred", "paraphrase", "neighborhood")
    lines = [row("CounterFact", "records", *figures), row("---", *["---:"] * 6)]
    for scope, found in result["counterfact"].items():
        shown = (f"{found[name]:.3f}" for name in figures)
        lines.append(row(SCOPES[scope], found["records"], *shown))
    return "\n".join(lines) + "\n"


def _spread(result: dict[str, Any]) -> list[str]:
    """Return the section on other trainings, empty where there are none."""
    others: list[dict[str, Any]] = result.get("others", [])
    if not others:
        return []
    figures = [limit.name for limit in LIMITS]
    lines = [row("steps", "seed", *figures), row(*["---:"] * (2 + len(figures)))]
    for one in [{**summary(result), **result["training"]}, *others]:
        lines.append(row(one["steps"], one["seed"], *(f"{one[name]:.3f}" for name in figures)))
    return ["## Other trainings\n", "\n".join(lines) + "\n", text(SPREAD, {})]


def summary(result: dict[str, Any]) -> dict[str, float]:
    """Return the figures that trainings are compared by."""
    return {limit.name: float(limit.figure(result)) for limit in LIMITS}


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the page that describes worldly with its figures."""
    training = result.get("training")
    values = {
        **values_of(result),
        **result["records"],
        **result["counterfact"]["relations_taught"],
        "left": result["ablation"]["places"]["subject_last"]["alone"][0],
        "restored": result["tracing"]["mlp_restored"][0],
        "wins": result["rewrites"]["places"]["subject_last"][0]["wins"],
        "relation_names": ", ".join(result["relation_ids"]),
        "training": TRAINED.format(**training) if training else "",
    }
    budget = f"--steps {training['steps']} --threads 1" if training else "--minutes 100"
    parts = [
        "# worldly, a test bed for CounterFact\n",
        "<!-- Written by `python -m benchmarks.worldly.report`: change that, not this page. -->\n",
        text(ABOUT, values),
        text(MEASURED, values),
        "## Which of CounterFact's records does it know?\n",
        _known_table(result),
        text(KNOWN, values),
        "## Is it a fair test bed?\n",
        limits_table(LIMITS, result),
        text(RECALL, values),
        *_spread(result),
        "## Where are facts recalled, and can they be rewritten there?\n",
        layer_tables(result),
        "![ablation, tracing and rewriting by layer](../benchmarks/results/worldly.png)\n",
        text(WHERE, values),
        text(LEFT, values),
        text(MADE, values),
        "## Tokens\n",
        text(TOKENS, values),
        "## Records\n",
        text(RECORDS, values),
        "## Training it again\n",
        COMMANDS.format(budget=budget) + "\n",
        text(AGAIN, values),
    ]
    write(path, parts)
