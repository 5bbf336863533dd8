"""Measure atlas and write `benchmarks/results/atlas.json`, a plot and `docs/atlas.md`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import torch

from benchmarks.atlas.records import RECORDER, load_records
from benchmarks.atlas.report_page import write_page
from benchmarks.atlas.world import WORLD
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
from benchmarks.testbeds.report_plot import write_plot

ROOT: Final = Path(__file__).parents[2]


def measure(folder: Path, data: Path, seed: int, requests: int) -> Result:
    """Return every figure of the report for the model in a folder."""
    started = time.monotonic()
    model, tokenizer = load(folder)
    _, held_out = split_texts(load_texts(data))
    return {
        **identity(model, folder, len(tokenizer), WORLD),
        "records": {"dev": len(load_records("dev")), "test": len(load_records("test"))},
        "recall": recall(model, tokenizer, WORLD),
        **located(model, tokenizer, RECORDER, requests, seed),
        "prose_perplexity": perplexity(model, tokenizer, held_out),
        **surroundings(),
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Read the options, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "patchkit" / "models" / "atlas")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds text/*.txt"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="root of the tree that gets the files"
    )
    parser.add_argument("--log", type=Path, help="log.csv of the training")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.model, args.data, args.seed, args.requests)
    if args.log:
        result["training"] = training_figures(args.log)
    results: Path = args.out / "benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "atlas.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_plot(result, args.log, results / "atlas.png")
    write_page(result, args.out / "docs" / "atlas.md")


if __name__ == "__main__":
    main()
