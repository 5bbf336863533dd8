"""Measure worldly and write `benchmarks/results/worldly.json`, a plot and `docs/worldly.md`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import fmean
from typing import Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.provenance import commit
from benchmarks.testbeds.clozes import ask
from benchmarks.testbeds.measure import (
    Result,
    identity,
    load,
    located,
    perplexity,
    recall,
    surroundings,
    training_figures,
)
from benchmarks.testbeds.prose import load_texts, split_texts
from benchmarks.testbeds.records import Record, Recorder
from benchmarks.testbeds.report_plot import write_plot
from benchmarks.testbeds.world import World
from benchmarks.worldly.data import counterfact
from benchmarks.worldly.records import fact_of, known, make_records, of_prompts
from benchmarks.worldly.report_page import summary, write_page
from benchmarks.worldly.train import PRESETS, world_of

ROOT: Final = Path(__file__).parents[2]
ASKED: Final = 10_000


def _asked(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    records: Sequence[Record],
) -> list[dict[str, float]]:
    """Return for each record whether it is taught and known, and its shares of other prompts.

    Of those the true object is asked for, all of its tokens the argmax.
    """
    says, facts = known(model, tokenizer, records), frozenset(world.facts)
    rows = [
        {"taught": float(fact_of(record) in facts), "argmax": right, "preferred": likelier}
        for record, right, likelier in zip(records, says.argmax, says.preferred, strict=True)
    ]
    for kind in ("paraphrase", "neighborhood"):
        clozes = [of_prompts(record, kind) for record in records]
        right = iter(ask(model, tokenizer, list(chain(*clozes))).right.tolist())
        for row, asked in zip(rows, clozes, strict=True):
            row[kind] = fmean(islice(right, len(asked)))
    taught = {world.prompt(f, w) for f in facts for w in range(len(world.wordings[f.relation]))}
    for row, record in zip(rows, records, strict=True):
        row["neighborhood_taught"] = fmean(p in taught for p in record["neighborhood_prompts"])
    return rows


def counterfact_figures(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    records: Sequence[Record],
) -> Result:
    """Return mean shares over all of these records, and over those of the relations taught."""
    rows = _asked(model, tokenizer, world, records)
    taught = [
        row
        for row, record in zip(rows, records, strict=True)
        if fact_of(record).relation in world.by_relation
    ]
    return {
        scope: {"records": len(chosen), **{k: fmean(r[k] for r in chosen) for k in chosen[0]}}
        for scope, chosen in (("all", rows), ("relations_taught", taught))
    }


def measure(folder: Path, data: Path, preset: str, seed: int, requests: int) -> Result:
    """Return every figure of the report for the model in a folder."""
    started = time.monotonic()
    model, tokenizer = load(folder)
    world = world_of(data, preset)
    _, held_out = split_texts(load_texts(data))
    made = make_records(model, tokenizer, world, data)
    return {
        **identity(model, folder, len(tokenizer), world),
        "preset": preset,
        "relation_ids": sorted(world.by_relation),
        "counterfact": counterfact_figures(model, tokenizer, world, counterfact(data)),
        "records": {name: len(rows) for name, rows in made.items()},
        "recall": recall(model, tokenizer, world, ASKED),
        **located(model, tokenizer, Recorder(world), requests, seed),
        "prose_perplexity": perplexity(model, tokenizer, held_out),
        "commit": commit(),
        **surroundings(),
        "seconds": round(time.monotonic() - started, 1),
    }


def training_of(log: Path, seed: int, note: str) -> Result:
    """Return how the training went."""
    return {**training_figures(log), "seed": seed, "note": note}


def comparable(path: Path) -> Result:
    """Return what another training is compared by, from its report."""
    result: Result = json.loads(path.read_text("utf-8"))
    return {"digest": result["testbed_digest"], **result["training"], **summary(result)}


def main() -> None:
    """Read the options, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    out = "root of the tree that gets the files"
    parser.add_argument("--out", type=Path, default=ROOT, help=out)
    parser.add_argument("--log", type=Path, help="log.csv of the training")
    seed = "seed of the training"
    parser.add_argument("--training-seed", type=int, default=0, help=seed)
    others = "reports (JSON) of other trainings, for the spread"
    parser.add_argument("--others", type=Path, nargs="*", default=[], help=others)
    note = "a sentence on how the training went, for the page"
    parser.add_argument("--note", default="", help=note)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.model, args.data, args.preset, args.seed, args.requests)
    if args.log:
        result["training"] = training_of(args.log, args.training_seed, args.note)
    result["others"] = [comparable(path) for path in args.others]
    results: Path = args.out / "benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "worldly.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_plot(result, args.log, results / "worldly.png")
    write_page(result, args.out / "docs" / "worldly.md")


if __name__ == "__main__":
    main()
